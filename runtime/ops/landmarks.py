"""Landmarks as shifts from the anchor's centre, in the units of its box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..spec import Spec


def decode_landmarks(spec: Spec, anchor: NDArray[np.intp], landmark: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (n, k, 2) in pixels of the input, of the values `landmark` (n, 2k): centre + v₀·d·unit."""
    centre, unit = spec.anchors[anchor, np.newaxis, :2], spec.units[anchor, np.newaxis, np.newaxis]
    return np.asarray(centre + spec.variances[0] * unit * landmark.reshape(len(landmark), spec.landmarks, 2))
