"""Which artifact to run when nobody says: what was picked on this machine, or what its target prefers.

The pick lies in the bundle as `device.json`, beside the manifest and not in it: it belongs to the machine and not to
the build. On another kind of processor it is as if it were not there.
"""

from __future__ import annotations

import json
from pathlib import Path

from ..backends import installed
from ..bundle.bundle import DEVICE, Artifact, Bundle
from ..errors import BackendError, BundleError
from ..io.atomic import write_whole
from ..io.untrusted import read_json
from .targets import choose_target, this_processor

FORMAT_VERSION = 1
DEVICE_BYTES = 1 << 16


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
        stored = read_json(bundle.path / DEVICE, DEVICE_BYTES, links=False)
        alike = stored["format_version"] == FORMAT_VERSION and stored["processor"] == _identity()
        artifact = bundle.artifact(str(stored["backend"]), str(stored["precision"])) if alike else None
    except (OSError, ValueError, KeyError, TypeError, BundleError):
        return None
    return artifact if artifact and artifact.backend in installed() else None


def store_pick(bundle: Bundle, backend: str, precision: str) -> Path:
    """Keep the pick in the bundle; gives its file. Raises `BundleError` when that cannot be written."""
    artifact = bundle.artifact(backend, precision)
    content = {
        "format_version": FORMAT_VERSION,
        "processor": _identity(),
        "backend": artifact.backend,
        "precision": artifact.precision,
    }
    path = bundle.path / DEVICE
    try:
        write_whole(path, json.dumps(content, indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise BundleError(f"{path} cannot be written ({error.strerror}); store the pick where it can be") from error
    return path


def _identity() -> dict[str, str]:
    processor = this_processor()
    return {"architecture": processor.architecture, "model": processor.model, "part": processor.part}
