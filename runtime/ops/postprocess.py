"""Raw outputs to faces: candidates, decoding, non-maximum suppression, and back to the frame.

Candidates are found by comparing raw scores with the threshold in their own domain (integers where the artifact gives
integers); only candidates are dequantised and decoded, in float64. Order is defined: higher logit first, then the lower
anchor index, so results never depend on a sort's internals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..errors import ThresholdError
from ..spec import Spec
from .letterbox import Letterbox

RawOutput = NDArray[np.float32] | NDArray[np.int8] | NDArray[np.uint8]

# A raw value beyond this is no prediction but damage, and drops its candidate, as NaN and infinity do; a trained
# network stays far below. The limit keeps every later number finite: exp(0.2·500) is 2.7e43.
RAW_LIMIT = 500.0
NMS_BLOCK = 64
ROWS = (slice(0, 1), slice(1, 5), slice(5, 15))  # of a candidate's values: score, box, landmarks
CHANNELS = 15


@dataclass(frozen=True)
class Grid:
    """Quantisation of one tensor: real = (integer − zero_point)·scale. Float tensors have scale 1 and zero point 0."""

    scale: float = 1.0
    zero_point: int = 0


@dataclass(frozen=True)
class Face:
    """One face, in pixels of the frame; (0, 0) is the frame's top left corner. The box may reach outside the frame.

    `landmarks` are the left eye, right eye, nose, left and right mouth corner, left and right as seen in the picture.
    """

    score: float
    box: tuple[float, float, float, float]
    landmarks: tuple[tuple[float, float], ...]
    vertices: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    """(468, 3) where meshes were asked for: in pixels of the frame, depth away from the viewer."""


@dataclass(frozen=True, eq=False)
class Faces:
    """The faces of one frame, best first: `scores` (n,), `boxes` (n, 4) as x1, y1, x2, y2, `landmarks` (n, 5, 2).

    All float64; coordinates in pixels of the frame. `vertices` (n, 468, 3) only where meshes were asked for. Iterating
    or indexing gives `Face`.
    """

    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    vertices: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: int) -> Face:
        x1, y1, x2, y2 = self.boxes[index].tolist()
        return Face(
            score=float(self.scores[index]),
            box=(x1, y1, x2, y2),
            landmarks=tuple((x, y) for x, y in self.landmarks[index].tolist()),
            vertices=None if self.vertices is None else self.vertices[index],
        )

    def __iter__(self) -> Iterator[Face]:
        return (self[index] for index in range(len(self)))


def postprocess(
    spec: Spec,
    outputs: Sequence[RawOutput],
    grids: Sequence[Grid],
    placement: Letterbox,
    score_threshold: float = 0.5,
    iou_threshold: float = 0.4,
    mask: NDArray[np.bool_] | None = None,
) -> Faces:
    """Decode one frame's raw outputs.

    `outputs` and `grids` are in the order of `spec.outputs`. A face is kept when its score is at least
    `score_threshold` and no better face overlaps it by an intersection over union above `iou_threshold`. Candidates
    with a value that is not finite, or beyond `RAW_LIMIT`, never make a face. `mask` is working memory, bool of shape
    (anchors,); with it, nothing is allocated but for the candidates. Raises `ThresholdError` when a threshold is not in
    0…1.
    """
    check_thresholds(score_threshold, iou_threshold)
    mask = np.empty(len(spec.anchors), np.bool_) if mask is None else mask
    anchor, raw = _candidates(spec, outputs, grids, score_threshold, mask)
    damage = np.abs(raw)
    if not damage.max(initial=0.0) <= RAW_LIMIT:  # not `>`, which NaN would pass
        usable = damage.max(axis=0) <= RAW_LIMIT
        anchor, raw = anchor[usable], raw[:, usable]
    order = (-raw[0]).argsort(kind="stable")  # anchors ascend, and equal logits stay in that order
    anchor, raw = anchor[order], raw[:, order]
    corners = decode_boxes(spec, anchor, raw[1:5].T)
    kept = non_maximum_suppression(corners, iou_threshold)
    scale = np.array([placement.scale_x, placement.scale_y, placement.scale_x, placement.scale_y])
    return Faces(
        scores=1.0 / (1.0 + np.exp(-raw[0, kept])),
        boxes=corners[kept] * scale,
        landmarks=decode_landmarks(spec, anchor[kept], raw[5:15, kept].T) * scale[:2],
    )


def check_thresholds(score_threshold: float, iou_threshold: float) -> None:
    """Raise `ThresholdError` unless both are in 0…1."""
    for name, value in (("score", score_threshold), ("IoU", iou_threshold)):
        if not 0.0 <= value <= 1.0:
            raise ThresholdError(f"the {name} threshold must be between 0 and 1, not {value!r}")


def decode_boxes(spec: Spec, anchor: NDArray[np.intp], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners x1, y1, x2, y2 (n, 4) in pixels of the input, of the values `box` (n, 4) at anchors `anchor` (n,).

    Centre = anchor + v₀·d·size, width and height = size·exp(v₁·d) (SSD, section 2.2).
    """
    x_y_size, offset = spec.anchors[anchor].T, box.T  # (values, n): long loops over the boxes
    half = np.exp(spec.variances[1] * offset[2:])
    half *= 0.5 * x_y_size[2]
    centre = spec.variances[0] * x_y_size[2] * offset[:2]
    centre += x_y_size[:2]
    return np.concatenate([centre - half, centre + half]).T


def decode_landmarks(spec: Spec, anchor: NDArray[np.intp], landmark: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, 5, 2) in pixels of the input, of the values `landmark` (n, 10): anchor + v₀·d·size."""
    prior = spec.anchors[anchor][:, np.newaxis]
    return np.asarray(prior[..., :2] + spec.variances[0] * prior[..., 2:] * landmark.reshape(-1, 5, 2))


def non_maximum_suppression(boxes: NDArray[np.float64], iou_threshold: float) -> NDArray[np.intp]:
    """Indices of the boxes to keep, given finite `boxes` (n, 4) best first: each suppresses the later ones it overlaps.

    The best 64 that remain are compared with all that remain at once: few calls for a few faces, and no n × n table
    for thousands of candidates.
    """
    index = np.arange(len(boxes))
    sides = np.ascontiguousarray(boxes.T)  # (4, n): long loops over the boxes
    area = (sides[2] - sides[0]) * (sides[3] - sides[1])
    kept: list[int] = []
    while len(index):
        head = sides[:, :NMS_BLOCK, np.newaxis]
        shared = np.minimum(head[2:], sides[2:, np.newaxis])
        shared -= np.maximum(head[:2], sides[:2, np.newaxis])
        np.maximum(shared, 0.0, out=shared)
        overlap = shared[0] * shared[1]
        survives = overlap <= iou_threshold * (area[:NMS_BLOCK, np.newaxis] + area - overlap)
        # Each row as one integer, a bit for each box: the loop is then free of NumPy.
        packed = np.packbits(survives, axis=1, bitorder="little")
        alive = (1 << len(index)) - 1
        for row, survivors in enumerate(packed):
            if alive >> row & 1:
                kept.append(int(index[row]))
                alive &= int.from_bytes(survivors.tobytes(), "little")
        if len(index) <= NMS_BLOCK:
            break
        bits = np.frombuffer(alive.to_bytes(packed.shape[1], "little"), np.uint8)
        left = np.flatnonzero(np.unpackbits(bits, count=len(index), bitorder="little")[NMS_BLOCK:]) + NMS_BLOCK
        index, sides, area = index[left], sides[:, left], area[left]
    return np.array(kept, np.intp)


def _candidates(
    spec: Spec,
    outputs: Sequence[RawOutput],
    grids: Sequence[Grid],
    score_threshold: float,
    mask: NDArray[np.bool_],
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Anchor indices (n,) in ascending order, and their values (15, n): logit, box, landmarks."""
    levels, starts = len(spec.strides), spec.level_bounds
    logit = _logit(score_threshold)
    for level in range(levels):
        _reaches(outputs[level].reshape(-1), grids[level], logit, mask[starts[level] : starts[level + 1]])
    anchor = mask.nonzero()[0]
    bounds = anchor.searchsorted(starts).tolist()
    raw = np.empty((CHANNELS, len(anchor)))
    for level, (first, last) in enumerate(pairwise(bounds)):
        if first == last:
            continue
        index = anchor[first:last] - starts[level]
        for head, rows in enumerate(ROWS):
            output = outputs[head * levels + level]
            values = raw[rows, first:last]
            values[:] = output.reshape(-1, rows.stop - rows.start).take(index, axis=0).T
            if output.dtype != np.float32:
                grid = grids[head * levels + level]
                values -= grid.zero_point
                values *= grid.scale
    return anchor, raw


def _reaches(score: RawOutput, grid: Grid, logit: float, out: NDArray[np.bool_]) -> None:
    """Write to `out` which raw scores reach `logit`, compared in the scores' own type."""
    if score.dtype == np.float32:
        np.greater_equal(score, np.float32(logit), out=out)
        return
    lowest, highest = (-128, 127) if score.dtype == np.int8 else (0, 255)
    least = logit if math.isinf(logit) else math.ceil(logit / grid.scale + grid.zero_point)
    if least > highest:
        out[:] = False
    else:
        np.greater_equal(score, score.dtype.type(max(least, lowest)), out=out)


def _logit(score: float) -> float:
    """The logit whose sigmoid is `score`; infinite for 0 and 1."""
    if score <= 0.0 or score >= 1.0:
        return math.copysign(math.inf, score - 0.5)
    return math.log(score / (1.0 - score))
