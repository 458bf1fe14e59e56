"""The multi-task loss of RetinaFace (arXiv 1905.00641, equation 1) and the matching of anchors to faces it rests on.

L = classification + 0.25·box + 0.1·landmarks + 0.01·dense. Anchors that overlap a face by an IoU above 0.5 are
positive, below 0.3 negative, others do not count. Of the negatives, the hardest three for each positive count (OHEM,
section 4.2). Box and landmark terms are smooth L1 on the coded offsets (Fast R-CNN, arXiv 1504.08083, equation 3).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

BOX_WEIGHT, LANDMARK_WEIGHT, DENSE_WEIGHT = 0.25, 0.1, 0.01
POSITIVE, NEGATIVE = 0.5, 0.3
NEGATIVES_A_POSITIVE = 3
LEAST_NEGATIVES = 3
"""Of a picture without a face, so many of the hardest anchors count."""


class Targets(NamedTuple):
    """What each of n anchors of a picture should say.

    `label` (n,) int64: 1 positive, 0 negative, −1 neither. `box` (n, 4) and `landmark` (n, 10) are coded as the network
    gives them; they count where `label` is 1, landmarks only where `visible` (n, 5) is true too.
    """

    label: Tensor
    box: Tensor
    landmark: Tensor
    visible: Tensor


class Losses(NamedTuple):
    """The terms, each a mean over what counts in it; `total` is their weighted sum."""

    total: Tensor
    classification: Tensor
    box: Tensor
    landmark: Tensor
    dense: Tensor


def match(
    anchors: Tensor, boxes: Tensor, landmarks: Tensor, visible: Tensor, variances: tuple[float, float]
) -> Targets:
    """Targets of `anchors` (n, 3: centre x, y, size) for faces `boxes` (m, 4 corners), `landmarks` (m, 5, 2).

    `visible` (m, 5) says which landmarks are known.

    An anchor belongs to the face it overlaps most. The anchor that overlaps a face most is positive too when the
    overlap is at least 0.3, so that a face between two sizes is not lost.
    """
    count = len(anchors)
    if not len(boxes):
        empty = torch.zeros(count, dtype=torch.int64)
        unseen = torch.zeros(count, landmarks.shape[1], dtype=torch.bool)
        return Targets(empty, torch.zeros(count, 4), torch.zeros(count, 2 * landmarks.shape[1]), unseen)
    overlap = _iou(anchors, boxes)
    most, face = overlap.max(dim=1)
    label = torch.full((count,), -1, dtype=torch.int64)
    label[most < NEGATIVE] = 0
    label[most > POSITIVE] = 1
    best, anchor = overlap.max(dim=0)
    for index in range(len(boxes)):
        if best[index] >= NEGATIVE:
            label[anchor[index]], face[anchor[index]] = 1, index
    size = anchors[:, 2:]
    chosen = boxes[face]
    centre, sides = 0.5 * (chosen[:, :2] + chosen[:, 2:]), (chosen[:, 2:] - chosen[:, :2]).clamp_min(1e-3)
    box = torch.cat([(centre - anchors[:, :2]) / (variances[0] * size), (sides / size).log() / variances[1]], dim=1)
    landmark = (landmarks[face] - anchors[:, None, :2]) / (variances[0] * size[:, None])
    return Targets(label, box, landmark.flatten(1), visible[face])


def multi_task(
    scores: Tensor, boxes: Tensor, landmarks: Tensor, targets: Targets, dense: Tensor | None = None
) -> Losses:
    """The loss of one picture: raw `scores` (n, 2: background, face), `boxes` (n, 4), `landmarks` (n, 10).

    `dense` is the pixel loss of the picture's faces, if a dense branch is trained along.
    """
    positive, negative = targets.label == 1, targets.label == 0
    each = functional.cross_entropy(scores, (targets.label == 1).long(), reduction="none")
    count = int(positive.sum())
    hardest = min(max(NEGATIVES_A_POSITIVE * count, LEAST_NEGATIVES), int(negative.sum()))
    counted = torch.cat([each[positive], each[negative].topk(hardest).values])
    classification = counted.mean()
    box = _smooth(boxes[positive], targets.box[positive], targets.box.shape[1])
    known = (positive[:, None] & targets.visible).repeat_interleave(2, dim=1)
    landmark = _smooth(landmarks[known], targets.landmark[known], targets.landmark.shape[1])
    dense = scores.new_zeros(()) if dense is None else dense
    total = classification + BOX_WEIGHT * box + LANDMARK_WEIGHT * landmark + DENSE_WEIGHT * dense
    return Losses(total, classification, box, landmark, dense)


def _smooth(given: Tensor, wanted: Tensor, values: int) -> Tensor:
    """Smooth L1, the mean over all numbers times `values`, those of an anchor; 0 when there is none.

    Where every anchor has all its values, this is their sum, averaged over anchors.
    """
    return values * functional.smooth_l1_loss(given, wanted, reduction="sum") / max(given.numel(), 1)


def _iou(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Intersection over union (n, m) of square anchors and corner boxes."""
    half = 0.5 * anchors[:, 2:]
    low = torch.maximum((anchors[:, :2] - half)[:, None], boxes[None, :, :2])
    high = torch.minimum((anchors[:, :2] + half)[:, None], boxes[None, :, 2:])
    shared = (high - low).clamp_min(0.0).prod(dim=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    return shared / (anchors[:, 2:] ** 2 + area - shared).clamp_min(1e-9)
