"""The dense branch before and after its network: what describes a face, where its vertices lie, and how it is turned.

A face is described by the detector's features at its five landmarks, sampled from every stride, and by how the
landmarks lie in the box. So the branch looks where the detector has found eyes, nose and mouth, at every scale, and
needs nothing of the anchor that found them. Vertices come back relative to the box. Every step is plain float32 or
float64 arithmetic, for C to repeat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .backends import Network
from .errors import BackendError
from .postprocess import Faces, Grid, RawOutput
from .preprocess import Letterbox
from .spec import Mesh, Spec
from .topology import topology

OFFSET_UNITS = 8.0
SIZE_OFFSET = 6.0
"""log₂ of the box size, in pixels, that describes a face as 0."""


class Pose(NamedTuple):
    """How a head is turned, in degrees.

    `yaw` is positive when it looks to the right of the picture, `pitch` when it looks up, `roll` when its top leans to
    the right of the picture.
    """

    yaw: float
    pitch: float
    roll: float


def add_meshes(
    spec: Spec,
    network: Network,
    faces: Faces,
    features: Sequence[RawOutput],
    grids: Sequence[Grid],
    placement: Letterbox,
) -> Faces:
    """`faces` with their vertices. `features` and `grids` are in the order of `spec.features`; `network` is the branch.

    All faces go through the network in one batch; more than its batch size, in several.
    """
    if spec.mesh is None:
        raise BackendError("this detector has no dense branch; build the bundle with --mesh")
    scale = np.array([placement.scale_x, placement.scale_y])
    boxes, landmarks = faces.boxes / np.tile(scale, 2), faces.landmarks / scale
    described = describe(spec, features, grids, boxes, landmarks)
    vertices = place(boxes, run(spec.mesh, network, described))
    vertices *= (*scale, math.sqrt(scale[0] * scale[1]))
    return replace(faces, vertices=vertices)


def describe(
    spec: Spec,
    features: Sequence[RawOutput],
    grids: Sequence[Grid],
    boxes: NDArray[np.float64],
    landmarks: NDArray[np.float64],
) -> NDArray[np.float32]:
    """The description (n, inputs) of n faces with `boxes` (n, 4) and `landmarks` (n, 5, 2) in pixels of the input.

    By stride, then landmark, then channel: bilinear samples of `features`, pixel centres at half coordinates, the edge
    repeated outside. Then each landmark's x and y from the box's centre in eighths of the box size √(width·height),
    log₂ of the box size less 6, and by how many eighths of it the box is wider: so all numbers have ranges that one
    INT8 grid can hold.
    """
    assert spec.mesh is not None
    parts = [
        _sample(feature[0], grid, landmarks / stride - 0.5).reshape(len(boxes), 5 * feature.shape[3])
        for feature, grid, stride in zip(features, grids, spec.strides, strict=True)
    ]
    centre, size = _frame(boxes)
    offsets = (OFFSET_UNITS * (landmarks - centre[:, np.newaxis]) / size[:, np.newaxis, np.newaxis]).reshape(-1, 10)
    wider = OFFSET_UNITS * ((boxes[:, 2] - boxes[:, 0]) / size - 1.0)
    sizes = np.stack([np.log2(size) - SIZE_OFFSET, wider], axis=1)
    return np.concatenate([*parts, offsets, sizes], axis=1, dtype=np.float32)


def run(mesh: Mesh, network: Network, described: NDArray[np.float32]) -> NDArray[np.float64]:
    """Vertices (n, 468, 3) relative to the box, of n described faces."""
    (grid,) = network.grids
    result = np.empty((len(described), mesh.vertices, 3))
    batch = np.zeros(mesh.input_shape, np.float32)
    for first in range(0, len(described), mesh.batch):
        part = described[first : first + mesh.batch]
        batch[0, 0, : len(part)] = part
        (vertices,) = network.run(batch)
        result[first : first + len(part)] = vertices[0, 0, : len(part)].reshape(-1, mesh.vertices, 3)
    return (result - grid.zero_point) * grid.scale


def place(boxes: NDArray[np.float64], vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """`vertices` (n, v, 3) relative to `boxes` (n, 4), in pixels as the boxes are: centre + size·(x, y), size·z."""
    centre, size = _frame(boxes)
    placed = vertices * size[:, np.newaxis, np.newaxis]
    placed[..., :2] += centre[:, np.newaxis]
    return placed


def relative(boxes: NDArray[np.float64], vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of `place`."""
    centre, size = _frame(boxes)
    moved = vertices.copy()
    moved[..., :2] -= centre[:, np.newaxis]
    return moved / size[:, np.newaxis, np.newaxis]


def head_pose(vertices: NDArray[np.float64]) -> Pose:
    """Yaw, pitch and roll of a face's `vertices` (468, 3), x right, y down, z away from the viewer.

    The rotation that brings the canonical face nearest, by least squares over rotation, scale and shift (Kabsch 1976;
    Umeyama 1991), read as roll in the picture after pitch after yaw.
    """
    canonical = topology().canonical * (1.0, -1.0, -1.0)
    source, target = canonical - canonical.mean(axis=0), vertices - vertices.mean(axis=0)
    u, _, v = np.linalg.svd(target.T @ source)
    rotation = (u * (1.0, 1.0, np.sign(np.linalg.det(u @ v)))) @ v
    # R = Rz(roll)·Rx(−pitch)·Ry(−yaw): its last row is (cos pitch·sin yaw, −sin pitch, cos pitch·cos yaw).
    return Pose(
        yaw=math.degrees(math.atan2(rotation[2, 0], rotation[2, 2])),
        pitch=math.degrees(-math.asin(float(np.clip(rotation[2, 1], -1.0, 1.0)))),
        roll=math.degrees(math.atan2(-rotation[0, 1], rotation[1, 1])),
    )


def _frame(boxes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (n, 2) and sizes √(width·height) (n,); decoded boxes have sides above 0."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return 0.5 * (low + high), np.sqrt(np.prod(high - low, axis=1))


def _sample(feature: RawOutput, grid: Grid, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Real values of `feature` (h, w, c) at `points` (n, p, 2), in its cells: (n, p, c)."""
    height, width = feature.shape[:2]
    x, y = np.clip(points[..., 0], 0.0, width - 1.0), np.clip(points[..., 1], 0.0, height - 1.0)
    left, top = np.minimum(x.astype(np.intp), width - 2), np.minimum(y.astype(np.intp), height - 2)
    across, down = (x - left)[..., np.newaxis], (y - top)[..., np.newaxis]
    upper = feature[top, left] * (1.0 - across) + feature[top, left + 1] * across
    lower = feature[top + 1, left] * (1.0 - across) + feature[top + 1, left + 1] * across
    return np.asarray((upper * (1.0 - down) + lower * down - grid.zero_point) * grid.scale)
