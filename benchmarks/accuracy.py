"""Average precision of detections against annotated boxes.

AP is the area under the precision–recall curve after each precision was raised to the best one at any higher recall
(PASCAL VOC 2010 on, "all points"). Detections are matched best first, each to the unmatched face it overlaps most, and
count as correct from an intersection over union of 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageDetections:
    """One image: detected `boxes` (n, 4) as x1, y1, x2, y2 with `scores` (n,), annotated `faces` (m, 4).

    `counted` (m,) says which faces count; a detection that meets one that does not is neither right nor wrong.
    """

    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]
    faces: NDArray[np.float64]
    counted: NDArray[np.bool_]


def average_precision(images: Sequence[ImageDetections], iou_threshold: float = 0.5) -> float:
    """AP in 0…1 over all images; NaN when no face counts."""
    total = sum(int(image.counted.sum()) for image in images)
    if total == 0:
        return float("nan")
    scores = np.concatenate([image.scores for image in images])
    right = np.concatenate([match(image, iou_threshold) for image in images])
    kept = right >= 0
    scores, right = scores[kept], right[kept]
    right = right[np.argsort(-scores, kind="stable")]
    true_positives = np.cumsum(right)
    precision = true_positives / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    recall = np.concatenate([[0.0], true_positives / total])
    return float(np.sum(np.diff(recall) * precision))


def match(image: ImageDetections, iou_threshold: float) -> NDArray[np.int64]:
    """For each detection (n,): 1 right, 0 wrong, −1 left out."""
    overlaps = iou(image.boxes, image.faces)
    free = np.ones(len(image.faces), bool)
    verdict = np.zeros(len(image.boxes), np.int64)
    for index in np.argsort(-image.scores, kind="stable"):
        candidates = np.where(free, overlaps[index], -1.0)
        best = int(candidates.argmax()) if len(candidates) else -1
        if best >= 0 and candidates[best] >= iou_threshold:
            free[best] = False
            verdict[index] = 1 if image.counted[best] else -1
    return verdict


def iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of every box in `a` (n, 4) with every one in `b` (m, 4): (n, m)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.prod(np.maximum(high - low, 0.0), axis=2)
    areas = [(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (a, b)]
    return np.asarray(intersection / np.maximum(areas[0][:, None] + areas[1][None, :] - intersection, 1e-12))
