"""How far the faces of one artifact are from another's, in one number."""

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
        overlaps = _overlaps(ours, theirs)
        while overlaps.size and (best := float(overlaps.max())) > 0.0:
            row, column = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
            overlap += best
            overlaps[row, :] = overlaps[:, column] = 0.0
    return 100.0 * (1.0 - 2.0 * overlap / faces) if faces else 0.0


def _overlaps(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of each box in `a` with each in `b`."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1][None, :] - shared, 1e-12))
