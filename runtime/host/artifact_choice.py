"""The default artifact on this machine: what `bench --store` chose, or what the target prefers.

The choice is stored in the bundle as `device.json`, beside the manifest and not in it: it belongs to the machine, not
to the build. On another kind of processor it is ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ..artifact import Backend, Precision
from ..backends import installed
from ..bundle.bundle import DEVICE, Artifact, Bundle
from ..errors import BackendError, BundleError
from ..io.atomic import write_atomic
from ..io.untrusted import read_json
from ..records import RecordError, from_json, to_json
from .targets import choose_target, this_processor

FORMAT_VERSION: Final = 1
DEVICE_BYTES = 1 << 16


@dataclass(frozen=True)
class Identity:
    """A kind of processor: the pick of one is none of another's."""

    architecture: str
    model: str
    part: str


@dataclass(frozen=True)
class Pick:
    """`device.json`: the artifact that was the fastest on one kind of processor."""

    format_version: Literal[1]
    processor: Identity
    backend: Backend
    precision: Precision


def default_artifact(bundle: Bundle, backend: str | None = None, precision: str | None = None) -> Artifact:
    """The artifact to run here, of those with this backend and precision where they are given.

    Raises `BackendError` when no backend is installed, `BundleError` when the bundle lacks the artifact.
    """
    picked = read_pick(bundle)
    if picked and backend in (None, picked.backend) and precision in (None, picked.precision):
        return picked
    target, _ = choose_target(this_processor())
    if backend is None:
        usable = [name for name in target.backends if name in installed()]
        if not usable:
            raise BackendError(
                "no backend is installed; run: pip install 'retinaface-edge[openvino]' (or tflite, onnxruntime)"
            )
        backend = usable[0]
    return bundle.artifact(backend, precision or target.precision)


def read_pick(bundle: Bundle) -> Artifact | None:
    """What was picked for this kind of processor, if anything was and its backend is installed."""
    try:
        stored = from_json(Pick, read_json(bundle.path / DEVICE, DEVICE_BYTES, links=False), DEVICE)
        if stored.processor != _identity():
            return None
        artifact = bundle.artifact(stored.backend.value, stored.precision.value)
    except (OSError, ValueError, RecursionError, RecordError, BundleError):
        return None
    return artifact if artifact.backend in installed() else None


def store_pick(bundle: Bundle, backend: str, precision: str) -> Path:
    """Keep the pick in the bundle; gives its file. Raises `BundleError` when that cannot be written."""
    artifact = bundle.artifact(backend, precision)
    pick = Pick(FORMAT_VERSION, _identity(), artifact.id.backend, artifact.id.precision)
    path = bundle.path / DEVICE
    try:
        write_atomic(path, json.dumps(to_json(pick), indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise BundleError(f"{path} cannot be written ({error.strerror}); store the pick where it can be") from error
    return path


def _identity() -> Identity:
    processor = this_processor()
    return Identity(processor.architecture, processor.model, processor.part)
