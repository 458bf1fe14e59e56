"""Raw outputs to faces: candidates, decoding, non-maximum suppression, and back to the frame.

Candidates are found by comparing raw scores with the threshold in their own domain (integers where the artifact gives
integers); only candidates are dequantised and decoded, in float64. Order is defined: higher logit first, then the lower
anchor index, so results never depend on a sort's internals.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .preprocess import Letterbox
from .spec import Spec

RawOutput = NDArray[np.float32] | NDArray[np.int8] | NDArray[np.uint8]


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
) -> Faces:
    """Decode one frame's raw outputs.

    `outputs` and `grids` are in the order of `spec.outputs`. A face is kept when its score is at least
    `score_threshold` and no better face overlaps it by an intersection over union above `iou_threshold`. Values that
    are not finite never make a face.
    """
    levels = len(spec.strides)
    logits, boxes, landmarks, anchors, offset = [], [], [], [], 0
    for level in range(levels):
        score, box, landmark = outputs[level], outputs[levels + level], outputs[2 * levels + level]
        index = np.flatnonzero(score.reshape(-1) >= _raw_threshold(score_threshold, score, grids[level]))
        logits.append(_dequantise(score.reshape(-1)[index], grids[level]))
        boxes.append(_dequantise(box.reshape(-1, 4)[index], grids[levels + level]))
        landmarks.append(_dequantise(landmark.reshape(-1, 10)[index], grids[2 * levels + level]))
        anchors.append(index + offset)
        offset += score.size
    anchor = np.concatenate(anchors)
    logit = np.concatenate(logits)
    corners, points = decode(spec, anchor, np.concatenate(boxes), np.concatenate(landmarks))

    finite = np.isfinite(logit) & np.isfinite(corners).all(axis=1) & np.isfinite(points).all(axis=(1, 2))
    anchor, logit, corners, points = anchor[finite], logit[finite], corners[finite], points[finite]
    order = np.lexsort((anchor, -logit))
    order = order[non_maximum_suppression(corners[order], iou_threshold)]

    scale = np.array([placement.scale_x, placement.scale_y])
    return Faces(
        scores=1.0 / (1.0 + np.exp(-logit[order])),
        boxes=corners[order] * np.tile(scale, 2),
        landmarks=points[order] * scale,
    )


def decode(
    spec: Spec, anchor: NDArray[np.intp], box: NDArray[np.float64], landmark: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Box and landmark offsets of some anchors, as corners (n, 4) and points (n, 5, 2) in pixels of the input.

    `anchor` (n,) are anchor indices, `box` (n, 4) and `landmark` (n, 10) the network's values for them.
    Centre = anchor + v₀·d·size, width and height = size·exp(v₁·d), landmark = anchor + v₀·d·size (SSD, section 2.2).
    """
    centre, size = spec.anchors[anchor, :2], spec.anchors[anchor, 2:]
    middle = centre + spec.variances[0] * box[:, :2] * size
    with np.errstate(over="ignore"):  # an absurd value becomes infinite, and the caller drops it
        half = 0.5 * size * np.exp(spec.variances[1] * box[:, 2:])
    points = centre[:, None] + spec.variances[0] * landmark.reshape(-1, 5, 2) * size[:, None]
    return np.concatenate([middle - half, middle + half], axis=1), points


def non_maximum_suppression(boxes: NDArray[np.float64], iou_threshold: float) -> NDArray[np.intp]:
    """Indices of the boxes to keep, given `boxes` (n, 4) best first: each suppresses the later ones it overlaps."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    remaining = np.arange(len(boxes))
    kept = []
    while len(remaining):
        best, remaining = remaining[0], remaining[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[remaining, :2])
        high = np.minimum(boxes[best, 2:], boxes[remaining, 2:])
        overlap = np.prod(np.maximum(high - low, 0.0), axis=1)
        union = area[best] + area[remaining] - overlap
        remaining = remaining[overlap <= iou_threshold * union]
    return np.array(kept, np.intp)


def _raw_threshold(score_threshold: float, score: RawOutput, grid: Grid) -> float:
    """The least raw value whose sigmoid reaches the threshold, in the raw tensor's own domain."""
    if score_threshold <= 0.0:
        logit = -math.inf
    elif score_threshold >= 1.0:
        logit = math.inf
    else:
        logit = math.log(score_threshold / (1.0 - score_threshold))
    if score.dtype == np.float32 or math.isinf(logit):
        return logit
    return math.ceil(logit / grid.scale + grid.zero_point)


def _dequantise(values: RawOutput, grid: Grid) -> NDArray[np.float64]:
    return (values.astype(np.float64) - grid.zero_point) * grid.scale
