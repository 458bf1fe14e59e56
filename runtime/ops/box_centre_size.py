"""Boxes as shifts of the anchor's centre and logarithms of its sides (SSD, section 2.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..spec import Spec

EXPONENT_LIMIT = 100.0
"""A side beyond e^±100 of its anchor is damage. The limit keeps every later number finite: areas are below 1e97."""


def raw_limits(spec: Spec, limit: float) -> tuple[float, float, float, float]:
    """Largest magnitude of each raw value, where a prediction may have at most `limit`."""
    side = min(limit, EXPONENT_LIMIT / spec.variances[1])
    return (limit, limit, side, side)


def has_area(box: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    """Which of `box` (4, n) are boxes: all of them, told as None."""
    return None


def corners(spec: Spec, anchor: NDArray[np.intp], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners x1, y1, x2, y2 (4, n) in pixels of the input, of the raw values `box` (4, n) at anchors `anchor` (n,).

    Centre = anchor + v₀·d·size, width and height = size·exp(v₁·d).
    """
    x_y_size = spec.anchors[anchor].T  # (values, n): long loops over the boxes
    half = np.exp(spec.variances[1] * box[2:])
    half *= 0.5 * x_y_size[2]
    centre = spec.variances[0] * x_y_size[2] * box[:2]
    centre += x_y_size[:2]
    return np.concatenate([centre - half, centre + half])
