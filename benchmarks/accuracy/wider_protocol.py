"""The WIDER FACE protocol: average precision on the easy, medium and hard faces of a set.

Written from the protocol of the benchmark (Yang et al., CVPR 2016, section 4, and its evaluation kit):
- every detection of an image, best first, meets the annotated face that it overlaps most, by an intersection over union
  in which both border pixels count (+1 in widths and heights); from 0.5 on they match;
- a match with a face that is not in the setting's list makes the detection count neither way; the first match with a
  listed one is right; any later match with the same face, and no match at all, is wrong;
- scores are normalised by the smallest and largest of the whole set; precision and recall are taken at 1,000 thresholds
  0.999, 0.998 … 0; precision is raised to the best at any higher recall, and AP is the area below it.

Detections are put in order of score first, so a file's order decides nothing. An image without annotated faces is left
out, as in the kit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.ops.iou import iou

from .average_precision import LEFT_OUT, RIGHT, WRONG, Judged

SETTINGS = ("easy", "medium", "hard")
IOU_THRESHOLD = 0.5
THRESHOLDS = 1000
BORDER = 1.0


def judge_wider(
    scores: NDArray[np.float64], boxes: NDArray[np.float64], faces: NDArray[np.float64], listed: NDArray[np.bool_]
) -> Judged:
    """Verdicts on `boxes` (n, 4) with `scores` (n,), given all annotated `faces` (m, 4) and which are `listed` (m,).

    Boxes are x, y, x + width, y + height in pixels.
    """
    order = np.argsort(-scores, kind="stable")
    verdicts = np.full(len(order), WRONG, np.int8)
    if not len(faces):
        return Judged(scores[order], np.full(len(order), LEFT_OUT, np.int8), 0)
    found = np.zeros(len(faces), bool)
    for rank, index in enumerate(order):
        overlaps = iou(boxes[index, None], faces, BORDER)[0]
        best = int(overlaps.argmax())
        if overlaps[best] < IOU_THRESHOLD:
            continue
        if not listed[best]:
            verdicts[rank] = LEFT_OUT
        elif not found[best]:
            verdicts[rank] = RIGHT
            found[best] = True
    return Judged(scores[order], verdicts, int(listed.sum()))


def wider_curve(
    judged: Sequence[Judged], weights: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision (1000,) at the thresholds, highest first; precision is 0 where nothing is detected.

    `weights` (images,) counts an image that many times; scores are normalised over all images regardless.
    """
    right, counted = threshold_counts(judged)
    weight = np.ones(len(judged)) if weights is None else weights
    faces = float(np.array([image.faces for image in judged], np.float64) @ weight)
    total_right, total = weight @ right, weight @ counted
    precision = np.divide(total_right, total, out=np.zeros(THRESHOLDS), where=total > 0)
    return np.asarray(total_right / faces if faces else np.zeros(THRESHOLDS)), precision


def threshold_counts(judged: Sequence[Judged]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each image and threshold (images, 1000): right detections, and all that count, at or above it."""
    scores = np.concatenate([image.scores for image in judged] or [np.zeros(0)])
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 0.0)
    thresholds = 1.0 - np.arange(1, THRESHOLDS + 1) / THRESHOLDS
    right = np.zeros((len(judged), THRESHOLDS))
    counted = np.zeros((len(judged), THRESHOLDS))
    for row, image in enumerate(judged):
        # When all scores are equal nothing can be normalised; they then pass every threshold.
        normalised = (image.scores - low) / (high - low) if high > low else np.ones(len(image.scores))
        reached = np.searchsorted(-normalised, -thresholds, side="right")
        right[row] = np.concatenate([[0], np.cumsum(image.verdicts == RIGHT)])[reached]
        counted[row] = np.concatenate([[0], np.cumsum(image.verdicts != LEFT_OUT)])[reached]
    return right, counted


def wider_average_precision(judged: Sequence[Judged], weights: NDArray[np.float64] | None = None) -> float:
    """AP in 0…1; NaN when no face is listed."""
    if not any(image.faces for image in judged):
        return float("nan")
    return area_under(*wider_curve(judged, weights))


def area_under(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """The area below a precision–recall curve whose recall rises, each precision raised to the best to its right."""
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * best))
