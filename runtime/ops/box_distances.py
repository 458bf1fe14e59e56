"""Boxes as four distances from the cell's origin, in units of the stride (FCOS, section 3.1; SCRFD)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..spec import Spec


def raw_limits(spec: Spec, limit: float) -> tuple[float, float, float, float]:
    """Largest magnitude of each raw value, where a prediction may have at most `limit`."""
    return (limit, limit, limit, limit)


def has_area(box: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    """Which of `box` (4, n) have their left side left of the right one, and top above bottom; None if all have."""
    has = (box[0] > -box[2]) & (box[1] > -box[3])
    return None if has.all() else has


def corners(spec: Spec, anchor: NDArray[np.intp], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners x1, y1, x2, y2 (4, n) in pixels of the input, of the raw values `box` (4, n) at anchors `anchor` (n,).

    Left = origin − d·stride, right = origin + d·stride, likewise top and bottom.
    """
    origin, stride = spec.anchors[anchor, :2].T, spec.units[anchor]
    distance = box * stride
    return np.concatenate([origin - distance[:2], origin + distance[2:]])
