"""What is measured: networks under one contract, whether they come from a bundle or from elsewhere."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retinaface_edge.runtime import backends
from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.spec import Spec

from ..errors import MeasurementError
from ..versions import environment

__all__ = ["Loader", "MeasurementError", "Subject", "digest_of", "environment", "subjects_of"]

Loader = Callable[[Spec, Sequence[bytes], int], backends.Network]


@dataclass(frozen=True)
class Subject:
    """One network to measure. It can be sent to another process or machine, and loads itself there.

    `name` is unique in a measurement, for instance `openvino int8`; `digest` (SHA-256) stands for all that decides its
    results. `loader` replaces the bundle's backends, for networks that are in no bundle.
    """

    name: str
    backend: str
    precision: str
    spec: Spec
    files: tuple[bytes, ...]
    digest: str
    loader: Loader | None = None

    def load(self, threads: int = 1) -> backends.Network:
        """The network, ready to run. Raises `BackendError` when its backend is missing."""
        if self.loader is not None:
            return self.loader(self.spec, self.files, threads)
        return backends.load(self.backend, self.spec, self.files, threads)


def subjects_of(bundle: Bundle, patterns: Sequence[str] = ("*",)) -> list[Subject]:
    """The artifacts of a bundle whose names match one of `patterns` (as in a shell), every file's digest checked.

    Raises `MeasurementError` when none matches and `BundleError` when a file was changed.
    """
    chosen = [
        artifact
        for artifact in bundle.artifacts
        if any(fnmatch.fnmatchcase(artifact.name, pattern) for pattern in patterns)
    ]
    if not chosen:
        present = ", ".join(artifact.name for artifact in bundle.artifacts) or "none"
        raise MeasurementError(f"no artifact of {bundle.path} matches {', '.join(patterns)}; it has: {present}")
    subjects = []
    for artifact in chosen:
        files = tuple(bundle.read(file) for file in artifact.files)
        digest = digest_of(repr(bundle.spec), artifact.backend, *(file.sha256 for file in artifact.files))
        subjects.append(Subject(artifact.name, artifact.backend, artifact.precision, bundle.spec, files, digest))
    return subjects


def digest_of(*parts: str) -> str:
    """SHA-256 over the parts, in order."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
