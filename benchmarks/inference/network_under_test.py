"""A network to be measured, whether it comes from a bundle or from elsewhere."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from retinaface_edge.runtime import backends
from retinaface_edge.runtime.artifact import ArtifactId, Backend, Precision
from retinaface_edge.runtime.bundle.bundle import Artifact, Bundle
from retinaface_edge.runtime.errors import BackendError
from retinaface_edge.runtime.spec import Spec

from ..errors import MeasurementError
from ..results import MeasuredNetwork

Loader = Callable[[Spec, Sequence[bytes], int], backends.Network]

REFERENCE = ArtifactId(Backend.ONNXRUNTIME, Precision.FP32)
"""The artifact that all others are compared with."""


@dataclass(frozen=True)
class NetworkUnderTest:
    """One network to measure. It can be sent to another process or machine, and loads itself there.

    `name` is unique in a measurement, for instance `openvino int8`; `digest` (SHA-256) stands for all that decides its
    results. `artifact` is None for what is not an artifact of a bundle; `loader` (spec, files, threads) loads that.
    """

    name: str
    spec: Spec
    files: tuple[bytes, ...]
    digest: str
    artifact: ArtifactId | None = None
    loader: Loader | None = None

    def load(self, threads: int = 1) -> backends.Network:
        """The network, ready to run. Raises `BackendError` when its backend is missing."""
        if self.loader is not None:
            return self.loader(self.spec, self.files, threads)
        assert self.artifact is not None, "a network without a loader is an artifact"
        return backends.load(self.artifact.backend.value, self.spec, self.files, threads)

    @property
    def record(self) -> MeasuredNetwork:
        """What a result says of it."""
        return MeasuredNetwork(self.name, sum(map(len, self.files)), self.digest, self.artifact)


def networks_of(bundle: Bundle, patterns: Sequence[str] = ("*",)) -> list[NetworkUnderTest]:
    """The artifacts of a bundle whose names match one of `patterns` (as in a shell), every file's digest checked.

    An artifact of a backend or precision that this version does not know has no `artifact`, and cannot be loaded.
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
    networks = []
    for artifact in chosen:
        files = tuple(bundle.read(file) for file in artifact.files)
        digest = digest_of(contract_text(bundle.spec), str(artifact.backend), *(file.sha256 for file in artifact.files))
        known = artifact_id(artifact)
        loader = None if known else partial(_unknown, artifact.name)
        networks.append(NetworkUnderTest(artifact.name, bundle.spec, files, digest, known, loader))
    return networks


def artifact_id(artifact: Artifact) -> ArtifactId | None:
    """The name of a bundle's artifact; None when this version does not know its backend or precision."""
    try:
        return ArtifactId(Backend(artifact.backend), Precision(artifact.precision))
    except ValueError:
        return None


def contract_text(spec: Spec) -> str:
    """The contract as it stands in manifests, for digests: the same text in every version that reads format 1."""
    return json.dumps(spec.to_json(), sort_keys=True)


def digest_of(*parts: str) -> str:
    """SHA-256 over the parts, in order."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()


def _unknown(name: str, spec: Spec, files: Sequence[bytes], threads: int) -> backends.Network:
    raise BackendError(f"this version cannot run {name}; it has: {', '.join(backend.value for backend in Backend)}")
