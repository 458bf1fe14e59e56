"""Drift of the dense branch: how far every artifact's meshes are from FP32's, on pictures without annotation.

Faces of two artifacts are the same where their boxes overlap by an IoU of at least 0.5; their meshes are then compared
vertex by vertex, in percent of √(box area).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime import backends
from retinaface_edge.runtime.artifact import ArtifactId, Precision
from retinaface_edge.runtime.bundle.bundle import Artifact, Bundle
from retinaface_edge.runtime.detector import Detector
from retinaface_edge.runtime.errors import BundleError
from retinaface_edge.runtime.mesh.branch import head_pose
from retinaface_edge.runtime.ops.iou import iou
from retinaface_edge.runtime.ops.postprocess import Faces
from retinaface_edge.runtime.spec import Spec

from ..inference.faces import arrays_of, faces_of
from ..inference.measurement import Execution, Unreadable, measure_pictures
from ..inference.network_under_test import REFERENCE, artifact_id, contract_text, digest_of
from ..inference.open_picture import OpenPicture, resident
from ..inference.result_cache import Arrays
from .result import MeshDrift, ShownMesh

MATCHED_IOU = 0.5

Vertices = NDArray[np.float64]


@dataclass(frozen=True)
class DenseNetwork:
    """A detector with its dense branch, to be measured. It can be sent to another process or machine."""

    artifact: ArtifactId
    spec: Spec
    detector: tuple[bytes, ...]
    branch: tuple[bytes, ...]
    digest: str

    def load(self) -> Detector:
        """The detector, ready to give meshes. Raises `BackendError` when its backend is missing."""
        mesh, backend = self.spec.mesh, self.artifact.backend.value
        assert mesh is not None, "its bundle has a dense branch"
        network = backends.load(backend, self.spec.with_features, self.detector, 1)
        branch = backends.load(backend, mesh, self.branch, 1)
        return Detector(self.spec, network, lambda: (network, branch))


@dataclass(frozen=True)
class MeshFaces:
    """Quantity: the faces of a picture with their meshes."""

    network: DenseNetwork

    @property
    def key(self) -> str:
        """See `Quantity`."""
        return digest_of("meshes", self.network.digest)

    def measure(self, picture: OpenPicture) -> Arrays:
        """The arrays of `Faces`, `vertices` among them."""
        detector = resident(f"dense {self.network.digest}", self.network.load)
        return arrays_of(detector.detect(picture.frame, mesh=True))

    def value(self, arrays: Arrays) -> Faces:
        """The faces."""
        return faces_of(arrays)


@dataclass(frozen=True, eq=False)
class _FacePair:
    """One face by FP32 and by an artifact: vertices (468, 3) each, and how far apart they are."""

    image: str
    expected: Vertices
    found: Vertices
    percent_of_size: float
    pose_degrees: float


def mesh_drift(bundle: Bundle, files: Mapping[str, Path], execution: Execution) -> tuple[MeshDrift, ...]:
    """The meshes of every artifact that can run here against FP32's on ONNX Runtime; none are shown for FP32 artifacts.

    `files` are pictures by name; those that cannot be read are left out. Raises `BundleError` when the bundle has no
    dense branch.
    """
    networks = [dense_network(bundle, mesh) for mesh in bundle.meshes]
    present = [network for network in networks if network and network.artifact.backend.value in backends.installed()]
    reference = next((network for network in present if network.artifact == REFERENCE), None)
    if reference is None:
        raise BundleError(f"{bundle.path} has no dense branch for {REFERENCE} that can run here")
    others = [network for network in present if network is not reference]
    pairs: list[list[_FacePair]] = [[] for _ in others]
    for outcome in measure_pictures([MeshFaces(network) for network in (reference, *others)], files, execution):
        if isinstance(outcome, Unreadable):
            continue
        expected = outcome.value(MeshFaces(reference))
        for index, network in enumerate(others):
            pairs[index] += _pairs(outcome.name, expected, outcome.value(MeshFaces(network)))
    return tuple(_drift(network.artifact, found) for network, found in zip(others, pairs, strict=True))


def dense_network(bundle: Bundle, mesh: Artifact) -> DenseNetwork | None:
    """The detector and the dense branch of `mesh`, every file's digest checked; None for an unknown backend."""
    known = artifact_id(mesh)
    if known is None:
        return None
    detector = bundle.artifact(mesh.backend, mesh.precision)
    digest = digest_of(
        contract_text(bundle.spec), str(known), *(file.sha256 for file in (*detector.files, *mesh.files))
    )
    contents, branch = (tuple(bundle.read(file) for file in artifact.files) for artifact in (detector, mesh))
    return DenseNetwork(known, bundle.spec, contents, branch, digest)


def _drift(artifact: ArtifactId, pairs: Sequence[_FacePair]) -> MeshDrift:
    if not pairs:
        return MeshDrift(str(artifact), 0, None, None, None, None)
    percent = [pair.percent_of_size for pair in pairs]
    ordered = sorted(pairs, key=lambda pair: pair.percent_of_size)
    shown = (_shown("worst", ordered[-1]), _shown("median", ordered[len(ordered) // 2]))
    return MeshDrift(
        artifact=str(artifact),
        faces=len(pairs),
        mean_percent_of_size=float(np.mean(percent)),
        median_percent_of_size=float(np.median(percent)),
        worst_percent_of_size=max(percent),
        pose_difference_degrees=float(np.mean([pair.pose_degrees for pair in pairs])),
        shown=shown if artifact.precision == Precision.INT8 else (),
    )


def _shown(which: Literal["worst", "median"], pair: _FacePair) -> ShownMesh:
    return ShownMesh(which, pair.image, pair.percent_of_size, _points(pair.expected), _points(pair.found))


def _points(vertices: Vertices) -> tuple[tuple[float, float], ...]:
    return tuple((x, y) for x, y in np.round(vertices[:, :2], 1).tolist())


def _pairs(image: str, expected: Faces, found: Faces) -> Iterator[_FacePair]:
    """The faces that both have found."""
    assert expected.vertices is not None and found.vertices is not None
    if not len(found):
        return
    for index, row in enumerate(iou(expected.boxes, found.boxes)):
        match = int(row.argmax())
        if row[match] < MATCHED_IOU:
            continue
        x1, y1, x2, y2 = expected.boxes[index]
        a, b = expected.vertices[index], found.vertices[match]
        distance = float(np.linalg.norm((a - b)[:, :2], axis=1).mean())
        turn = np.subtract(head_pose(a), head_pose(b))
        yield _FacePair(
            image,
            a,
            b,
            100.0 * distance / math.sqrt((x2 - x1) * (y2 - y1)),
            float(np.abs((turn + 180.0) % 360.0 - 180.0).mean()),
        )
