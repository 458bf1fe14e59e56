"""Raw outputs to faces: candidates, decoding, non-maximum suppression, and back to the frame.

Candidates are found by comparing raw scores with the threshold in their own domain (integers where the artifact gives
integers); only candidates are dequantised and decoded, in float64. Order is defined: higher logit first, then the lower
anchor index, so results never depend on a sort's internals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from .errors import ThresholdError
from .preprocess import Letterbox
from .spec import Spec

RawOutput = NDArray[np.float32] | NDArray[np.int8] | NDArray[np.uint8]

# A raw value beyond this is no prediction but damage, and drops its candidate, as NaN and infinity do; a trained
# network stays far below. The limit keeps every later number finite: exp(0.2·500) is 2.7e43.
RAW_LIMIT = 500.0
NMS_BLOCK = 64


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


@dataclass(frozen=True)
class Faces:
    """The faces of one frame, best first: `scores` (n,), `boxes` (n, 4) as x1, y1, x2, y2, `landmarks` (n, 5, 2).

    All float64; coordinates in pixels of the frame. Iterating or indexing gives `Face`.
    """

    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]
    landmarks: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: int) -> Face:
        x1, y1, x2, y2 = self.boxes[index].tolist()
        return Face(
            score=float(self.scores[index]),
            box=(x1, y1, x2, y2),
            landmarks=tuple((x, y) for x, y in self.landmarks[index].tolist()),
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
    usable = np.abs(raw).max(axis=1) <= RAW_LIMIT  # NaN is not
    if not usable.all():
        anchor, raw = anchor[usable], raw[usable]
    order = np.lexsort((anchor, -raw[:, 0]))
    anchor, raw = anchor[order], raw[order]

    corners = decode_boxes(spec, anchor, raw[:, 1:5])
    kept = non_maximum_suppression(corners, iou_threshold)
    points = decode_landmarks(spec, anchor[kept], raw[kept, 5:15])
    scale = np.array([placement.scale_x, placement.scale_y, placement.scale_x, placement.scale_y])
    return Faces(
        scores=1.0 / (1.0 + np.exp(-raw[kept, 0])),
        boxes=corners[kept] * scale,
        landmarks=points * scale[:2],
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
    prior = spec.anchors[anchor]
    size = prior[:, 2:]
    middle = prior[:, :2] + spec.variances[0] * box[:, :2] * size
    half = 0.5 * size * np.exp(spec.variances[1] * box[:, 2:])
    return np.concatenate([middle - half, middle + half], axis=1)


def decode_landmarks(spec: Spec, anchor: NDArray[np.intp], landmark: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, 5, 2) in pixels of the input, of the values `landmark` (n, 10): anchor + v₀·d·size."""
    prior = spec.anchors[anchor][:, np.newaxis]
    return np.asarray(prior[..., :2] + spec.variances[0] * landmark.reshape(-1, 5, 2) * prior[..., 2:])


def non_maximum_suppression(boxes: NDArray[np.float64], iou_threshold: float) -> NDArray[np.intp]:
    """Indices of the boxes to keep, given finite `boxes` (n, 4) best first: each suppresses the later ones it overlaps.

    The best 64 that remain are compared with all that remain at once: few calls for a few faces, and no n × n table
    for thousands of candidates.
    """
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    remaining = np.arange(len(boxes))
    kept: list[int] = []
    while len(remaining):
        block = remaining[:NMS_BLOCK]
        head, rest = boxes[block, np.newaxis], boxes[remaining]
        side = np.minimum(head[..., 2:], rest[:, 2:])
        side -= np.maximum(head[..., :2], rest[:, :2])
        np.maximum(side, 0.0, out=side)
        overlap = side[..., 0] * side[..., 1]
        suppresses = overlap > iou_threshold * (area[block, np.newaxis] + area[remaining] - overlap)
        alive = np.ones(len(remaining), np.bool_)
        for row in range(len(block)):
            if alive[row]:
                kept.append(int(block[row]))
                alive &= ~suppresses[row]
        remaining = remaining[NMS_BLOCK:][alive[NMS_BLOCK:]]
    return np.array(kept, np.intp)


def _candidates(
    spec: Spec,
    outputs: Sequence[RawOutput],
    grids: Sequence[Grid],
    score_threshold: float,
    mask: NDArray[np.bool_],
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Anchor indices (n,) in ascending order, and their values (n, 15): logit, box, landmarks."""
    levels = len(spec.strides)
    ends = list(accumulate(outputs[level].size for level in range(levels)))
    starts = [0, *ends[:-1]]
    for level, (start, end) in enumerate(zip(starts, ends, strict=True)):
        _reaches(outputs[level].reshape(-1), grids[level], score_threshold, mask[start:end])
    anchor = np.flatnonzero(mask)
    bounds = [0, *np.searchsorted(anchor, ends).tolist()]
    raw = np.empty((len(anchor), sum(head.channels for head in spec.heads)))
    for level, (first, last) in enumerate(pairwise(bounds)):
        if first == last:
            continue
        index = anchor[first:last] - starts[level]
        column = 0
        for position, head in enumerate(spec.heads):
            output = position * levels + level
            values = raw[first:last, column : column + head.channels]
            values[:] = outputs[output].reshape(-1, head.channels)[index]
            grid = grids[output]
            if grid.zero_point:
                values -= grid.zero_point
            if grid.scale != 1.0:
                values *= grid.scale
            column += head.channels
    return anchor, raw


def _reaches(score: RawOutput, grid: Grid, score_threshold: float, out: NDArray[np.bool_]) -> None:
    """Write to `out` which raw scores reach the threshold, compared in the scores' own type."""
    logit = _logit(score_threshold)
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
