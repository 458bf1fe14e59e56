"""Landmarks: decoded as shifts from the anchor's centre, and blended over the anchors that found the same face."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..spec import Spec


def decode_landmarks(spec: Spec, anchor: NDArray[np.intp], landmark: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, k, 2) in pixels of the input, of the values `landmark` (n, 2k): centre + v₀·d·unit."""
    centre, unit = spec.anchors[anchor, np.newaxis, :2], spec.units[anchor, np.newaxis, np.newaxis]
    return np.asarray(centre + spec.variances[0] * unit * landmark.reshape(len(landmark), spec.landmarks, 2))


def blend_landmarks(
    points: NDArray[np.float64], scores: NDArray[np.float64], owner: NDArray[np.intp]
) -> NDArray[np.float64]:
    """The mean of each face's predictions, weighted by their scores: (faces, k, 2).

    `points` (n, k, 2), one at least, and `scores` (n,) are sorted by `owner` (n,), the face from 0 on that each belongs
    to; the first of a face is its best. Box voting (Gidaris and Komodakis 2015, section 5) does the same to boxes.
    Neighbouring anchors err independently, above all by the rounding of INT8, so their mean is nearer the truth.
    """
    first = owner.searchsorted(np.arange(owner[-1] + 1))
    best = points[first]
    shifts = (points - best[owner]) * scores[:, np.newaxis, np.newaxis]  # a face alone keeps its landmarks to the bit
    total = np.add.reduceat(scores, first)
    return np.asarray(best + np.add.reduceat(shifts, first) / total[:, np.newaxis, np.newaxis])
