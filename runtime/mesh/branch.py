"""The dense branch before and after its network: what describes a face, where its vertices lie, and how it is turned.

A face is described by the detector's features at its five landmarks, sampled from every stride, and by how the
landmarks lie in the box. So the branch looks where the detector has found eyes, nose and mouth, at every scale, and
needs nothing of the anchor that found them. Vertices come back relative to the box. Every step is plain float32 or
float64 arithmetic, for C to repeat.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..backends import Network
from ..errors import BackendError
from ..ops.faces import Faces
from ..ops.letterbox import Letterbox
from ..ops.quantization import QuantParams, RawOutput
from ..spec import MESH_OFFSETS, Spec
from .topology import topology

OFFSET_UNITS = 8.0
SIZE_OFFSET = 6.0
"""log₂ of the box size, in pixels, that describes a face as 0."""
POINTS = 5
NEAR_AND_FAR = np.array([1.0, 0.0]).reshape(2, 1, 1, 1)
"""Of a position between two cells, |1 − position| is the share of the first, |position| that of the second."""


class Pose(NamedTuple):
    """How a head is turned, in degrees.

    `yaw` is positive when it looks to the right of the picture, `pitch` when it looks up, `roll` when its top leans to
    the right of the picture.
    """

    yaw: float
    pitch: float
    roll: float


class DenseBranch:
    """The loaded network of a dense branch, with the memory of one batch of faces on its way through.

    A frame has few faces, and the detector has just swept the caches: what counts is how often NumPy is called and how
    much memory it has to find. Safe to call from several threads: calls take turns.
    """

    def __init__(self, spec: Spec, network: Network, quant_params: Sequence[QuantParams]) -> None:
        """`quant_params` are those of the detector's features, in the order of `spec.features`."""
        if spec.mesh is None:
            raise BackendError("this detector has no dense branch; build the bundle with --mesh")
        self.spec = spec
        self._network = network
        self._batch = np.zeros(spec.mesh.input_shape, np.float32)
        self._sampler = _Sampler(spec, quant_params, spec.mesh.batch)
        self._lock = threading.Lock()

    def add_meshes(self, faces: Faces, features: Sequence[RawOutput], placement: Letterbox) -> Faces:
        """`faces` with their vertices. `features` are in the order of `spec.features`.

        All faces go through the network in one batch; more than its batch size, in several.
        """
        assert self.spec.mesh is not None
        scale = (placement.scale_x, placement.scale_y)
        boxes, landmarks = faces.boxes, faces.landmarks
        if scaled := scale != (1.0, 1.0):
            boxes, landmarks = boxes / (2 * scale), landmarks / scale
        centre, size, wider = middle, extent, _ = _frame(boxes)
        if scaled:
            middle, extent = centre * scale, size * math.sqrt(scale[0] * scale[1])
        aspect = math.sqrt(scale[0] / scale[1])
        vertices = np.empty((len(faces), self.spec.mesh.vertices, 3))
        (quant,) = self._network.quant_params
        with self._lock:
            for first in range(0, len(faces), self.spec.mesh.batch):
                part = slice(first, first + self.spec.mesh.batch)
                into = vertices[part]
                described = self._batch[0, 0, : len(into)]
                self._sampler.sample(features, landmarks[part], described)
                _measure(centre[part], size[part], wider[part], landmarks[part], described)
                (found,) = self._network.run(self._batch)
                real = found[0, 0, : len(into)].reshape(into.shape)
                if quant.zero_point or quant.scale != 1.0:
                    real = (real - np.float32(quant.zero_point)) * np.float32(quant.scale)
                _place(middle[part], extent[part], real, into, aspect)
        return Faces(faces.scores, faces.boxes, faces.landmarks, vertices)


def describe(
    spec: Spec,
    features: Sequence[RawOutput],
    quant_params: Sequence[QuantParams],
    boxes: NDArray[np.float64],
    landmarks: NDArray[np.float64],
) -> NDArray[np.float32]:
    """The description (n, inputs) of n faces with `boxes` (n, 4) and `landmarks` (n, 5, 2) in pixels of the input.

    By stride, then landmark, then channel: bilinear samples of `features`, pixel centres at half coordinates, the edge
    repeated outside. Then each landmark's x and y from the box's centre in eighths of the box size √(width·height),
    log₂ of the box size less 6, and by how many eighths of it the box is wider: so all numbers have ranges that one
    INT8 range can hold.
    """
    assert spec.mesh is not None
    described = np.empty((len(boxes), spec.mesh.inputs), np.float32)
    _Sampler(spec, quant_params, len(boxes)).sample(features, landmarks, described)
    _measure(*_frame(boxes), landmarks, described)
    return described


def place(boxes: NDArray[np.float64], vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """`vertices` (n, v, 3) relative to `boxes` (n, 4), in pixels as the boxes are: centre + size·(x, y), size·z."""
    centre, size, _ = _frame(boxes)
    placed = np.empty(vertices.shape)
    _place(centre, size, vertices, placed)
    return placed


def relative(boxes: NDArray[np.float64], vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of `place`."""
    centre, size, _ = _frame(boxes)
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


def _frame(boxes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Centres (n, 2), sizes √(width·height) (n,) and width ÷ size (n,); decoded boxes have sides above 0."""
    low, high = boxes[:, :2], boxes[:, 2:]
    side = high - low
    width = side[:, 0]
    size = np.sqrt(width * side[:, 1])
    return 0.5 * (low + high), size, width / size


def _measure(
    centre: NDArray[np.float64],
    size: NDArray[np.float64],
    wider: NDArray[np.float64],
    landmarks: NDArray[np.float64],
    described: NDArray[np.float32],
) -> None:
    """Write the last twelve numbers of descriptions."""
    offsets = landmarks - centre[:, np.newaxis]
    offsets *= (OFFSET_UNITS / size)[:, np.newaxis, np.newaxis]
    described[:, -MESH_OFFSETS:-2] = offsets.reshape(len(offsets), 2 * POINTS)
    described[:, -2] = np.log2(size) - SIZE_OFFSET
    described[:, -1] = OFFSET_UNITS * (wider - 1.0)


def _place(
    centre: NDArray[np.float64],
    size: NDArray[np.float64],
    vertices: NDArray[np.float64] | RawOutput,
    placed: NDArray[np.float64],
    aspect: float = 1.0,
) -> None:
    """Write to `placed`, x wider and y lower by `aspect` where pixels are not square.

    By axis, for loops over the three numbers of a vertex would be short ones.
    """
    placed[:] = vertices
    placed *= size[:, np.newaxis, np.newaxis]
    for axis, factor in enumerate((aspect, 1.0 / aspect)):
        values = placed[..., axis]
        if factor != 1.0:
            values *= factor
        values += centre[:, axis, np.newaxis]


class _Sampler:
    """Samples the features of up to `most` faces; holds where cells lie, and memory for their values."""

    def __init__(self, spec: Spec, quant_params: Sequence[QuantParams], most: int) -> None:
        assert spec.mesh is not None
        cells = np.array([spec.cells(stride)[::-1] for stride in spec.strides]).T
        row = cells[0, :, np.newaxis]
        self._inverse = 1.0 / np.array(spec.strides)[:, np.newaxis]
        self._before = np.nextafter(cells - 1.0, 0.0)[:, :, np.newaxis]  # so that every cell has a next one
        self._row = row
        self._around = np.stack([0 * row, 0 * row + 1, row, row + 1], axis=-1)
        self._scales = np.array([quant.scale for quant in quant_params])[:, np.newaxis]
        self._zeros = [np.float32(quant.zero_point * quant.scale) for quant in quant_params]
        self._raw: NDArray[Any] = np.empty((len(spec.strides), most * POINTS, 4, spec.mesh.channels), np.float32)

    def sample(
        self,
        features: Sequence[RawOutput],
        landmarks: NDArray[np.float64],
        described: NDArray[np.float32],
    ) -> None:
        """Write the samples at `landmarks` (n, 5, 2) to the first columns of `described` (n, inputs)."""
        levels, count, channels = len(features), len(landmarks), features[0].shape[3]
        cells, weights = self._corners(landmarks)
        weights *= self._scales
        if self._raw.dtype != features[0].dtype:
            self._raw = np.empty(self._raw.shape, features[0].dtype)
        raw = self._raw[:, : count * POINTS]
        for feature, cell, values in zip(features, cells, raw, strict=True):
            feature.reshape(-1, channels).take(cell, axis=0, out=values, mode="clip")  # all exist; "raise" would copy
        by_level = described[:, :-MESH_OFFSETS].reshape(count, levels, POINTS, 1, channels).transpose(1, 0, 2, 3, 4)
        np.matmul(
            weights.reshape(4, -1).T.astype(np.float32, order="C").reshape(levels, count, POINTS, 1, 4),
            raw.astype(np.float32, copy=False).reshape(levels, count, POINTS, 4, channels),
            out=by_level,
        )
        for level, zero in zip(by_level, self._zeros, strict=True):
            if zero:  # the weights of a sample add up to its scale
                level -= zero

    def _corners(self, landmarks: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """The four cells around each sample, (levels, 5n, 4), row by row, and their weights (2, 2, levels, 5n).

        Those are for upper and lower, left and right.
        """
        position = landmarks.reshape(-1, 2).T[:, np.newaxis] * self._inverse  # (2, levels, 5n): loops over the points
        position -= 0.5
        np.maximum(position, 0.0, out=position)
        np.minimum(position, self._before, out=position)
        first = position.astype(np.intp)
        position -= first
        cell = first[1] * self._row
        cell += first[0]
        shares = np.abs(NEAR_AND_FAR - position)
        return cell[..., np.newaxis] + self._around, shares[:, np.newaxis, 1] * shares[:, 0]
