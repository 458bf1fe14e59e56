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

from retinaface_edge.runtime.ops.iou import iou

RIGHT, WRONG, LEFT_OUT = 1, 0, -1


@dataclass(frozen=True)
class ImageDetections:
    """One image: detected `boxes` (n, 4) as x1, y1, x2, y2 with `scores` (n,), annotated `faces` (m, 4).

    `counted` (m,) says which faces count; a detection that meets one that does not is neither right nor wrong.
    """

    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]
    faces: NDArray[np.float64]
    counted: NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """What a protocol made of one image: a verdict (n,) int8 for each of its `scores` (n,), and how many faces count.

    A verdict is `RIGHT`, `WRONG` or `LEFT_OUT`. Both arrays are best score first.
    """

    scores: NDArray[np.float64]
    verdicts: NDArray[np.int8]
    faces: int


def average_precision(images: Sequence[ImageDetections], iou_threshold: float = 0.5) -> float:
    """AP in 0…1 over all images; NaN when no face counts."""
    return average_precision_of([judge(image, iou_threshold) for image in images])


def average_precision_of(judged: Sequence[Judged], weights: NDArray[np.float64] | None = None) -> float:
    """AP in 0…1 of judged images; NaN when no face counts. `weights` (images,) counts an image that many times."""
    recall, precision, _ = precision_recall(judged, weights)
    if not len(recall):
        return float("nan") if total_faces(judged, weights) == 0 else 0.0
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * best))


def precision_recall(
    judged: Sequence[Judged], weights: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Recall, precision and score threshold after each detection that counts, best first; empty when no face counts."""
    faces = total_faces(judged, weights)
    empty = np.zeros(0)
    if faces == 0 or not judged:
        return empty, empty, empty
    weight = np.ones(len(judged)) if weights is None else weights
    scores = np.concatenate([image.scores for image in judged])
    verdicts = np.concatenate([image.verdicts for image in judged])
    times = np.repeat(weight, [len(image.scores) for image in judged])
    kept = (verdicts != LEFT_OUT) & (times > 0)
    scores, verdicts, times = scores[kept], verdicts[kept], times[kept]
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum((verdicts[order] == RIGHT) * times[order])
    return right / faces, right / np.cumsum(times[order]), scores[order]


def total_faces(judged: Sequence[Judged], weights: NDArray[np.float64] | None = None) -> float:
    """How many faces count over all images, each image counted `weights` (images,) times."""
    faces = np.array([image.faces for image in judged], np.float64)
    return float(faces.sum() if weights is None else faces @ weights)


def judge(image: ImageDetections, iou_threshold: float = 0.5) -> Judged:
    """Verdicts of one image by `match`, best score first."""
    order = np.argsort(-image.scores, kind="stable")
    verdicts = match(image, iou_threshold).astype(np.int8)
    return Judged(image.scores[order], verdicts[order], int(image.counted.sum()))


def match(image: ImageDetections, iou_threshold: float) -> NDArray[np.int64]:
    """For each detection (n,), in the image's own order: `RIGHT`, `WRONG` or `LEFT_OUT`."""
    partner = assign(image.scores, image.boxes, image.faces, iou_threshold)
    verdict = np.full(len(image.boxes), WRONG, np.int64)
    met = partner >= 0
    verdict[met] = np.where(image.counted[partner[met]], RIGHT, LEFT_OUT)
    return verdict


def assign(
    scores: NDArray[np.float64], boxes: NDArray[np.float64], faces: NDArray[np.float64], iou_threshold: float
) -> NDArray[np.intp]:
    """For each box (n, 4) the index of the face (m, 4) it is matched to, or −1; at most one box per face.

    Best score first, each to the free face it overlaps most, if by `iou_threshold` or more.
    """
    partner = np.full(len(boxes), -1, np.intp)
    if not len(faces):
        return partner
    free = np.ones(len(faces), bool)
    for index in np.argsort(-scores, kind="stable"):  # row by row: a crowd's whole matrix would take hundreds of MB
        overlaps = np.where(free, iou(boxes[index, None], faces)[0], -1.0)
        best = int(overlaps.argmax())
        if overlaps[best] >= iou_threshold:
            partner[index] = best
            free[best] = False
    return partner


def size_of(boxes: NDArray[np.float64], frame_scale: float) -> NDArray[np.float64]:
    """Shorter sides (n,) in input pixels of boxes (n, 4) in picture pixels.

    `frame_scale` is the number of picture pixels per input pixel.
    """
    return np.asarray(np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) / frame_scale)


def none_if_nan(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else value
