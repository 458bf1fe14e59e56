"""IoU of boxes, and drift: how much the faces of two artifacts differ, in one number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def detection_drift(expected: Sequence[NDArray[np.float64]], found: Sequence[NDArray[np.float64]]) -> float:
    """Drift in percent of `found` boxes from `expected` ones, each (n, 4) an image. Symmetric in both.

    100·(1 − 2·Σ IoU / (boxes expected + boxes found)), the boxes of an image matched to each other, best first: 0 for
    the same boxes, 100 for none in common; a missed or invented face counts like a box without overlap.
    """
    overlap, faces = 0.0, 0
    for ours, theirs in zip(found, expected, strict=True):
        faces += len(ours) + len(theirs)
        overlaps = iou(ours, theirs)
        while overlaps.size and (best := float(overlaps.max())) > 0.0:
            row, column = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
            overlap += best
            overlaps[row, :] = overlaps[:, column] = 0.0
    return 100.0 * (1.0 - 2.0 * overlap / faces) if faces else 0.0


def iou(a: NDArray[np.float64], b: NDArray[np.float64], extra: float = 0.0) -> NDArray[np.float64]:
    """Intersection over union of every box in `a` (n, 4) with every one in `b` (m, 4): (n, m).

    `extra` is added to every width and height: 1 where a protocol counts both border pixels.
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.maximum(high - low + extra, 0.0)
    intersection = sides[..., 0] * sides[..., 1]
    areas = [(boxes[:, 2] - boxes[:, 0] + extra) * (boxes[:, 3] - boxes[:, 1] + extra) for boxes in (a, b)]
    return np.asarray(intersection / np.maximum(areas[0][:, None] + areas[1][None, :] - intersection, 1e-12))
