"""Checks of a detector's contract, the same whether it was made in Python or read from a manifest.

Each raises `TypeError` or `ValueError` with a short reason; `Spec` turns them into `SpecError`.
"""

from __future__ import annotations

import math

from .contract import MESH_LANDMARKS, MESH_LEVELS, BoxCoding, Mesh

LARGEST_ANCHOR = 1 << 16
LARGEST_STRIDE = 128
LARGEST_DEVIATION = 1 << 16
MOST_ANCHORS = 1 << 18
MOST_CHANNELS = 1 << 12


def check_input(mean: object, std: object, padding: object) -> None:
    """Mean and deviation of three channels, and the padding colour if one is given."""
    for name, values in (("mean value", mean), ("deviation", std)):
        if len(_tuple(values)) != 3:
            raise ValueError(f"three channels and {values!r} do not fit together")
        low, high = (0.0, 255.0) if values is mean else (math.ulp(0.0), float(LARGEST_DEVIATION))
        if not all(low <= number(value) <= high for value in _tuple(values)):
            raise ValueError(f"a {name} of {values!r} is out of range")
    if padding is not None and (
        len(_tuple(padding)) != 3 or not all(0 <= integer(value) <= 255 for value in _tuple(padding))
    ):
        raise ValueError(f"the padding colour {padding!r} is not three values of 0 to 255")


def check_levels(size: tuple[int, int], strides: object, anchor_sizes: object) -> None:
    """Rising strides, each with its anchors, not too many for an input of `size` (width, height)."""
    levels, sides = _tuple(strides), _tuple(anchor_sizes)
    if not 0 < len(levels) == len(sides):
        raise ValueError(f"strides {strides!r} and anchor sizes {anchor_sizes!r} do not fit together")
    anchors, before = 0, 0
    for stride, sizes in zip(map(integer, levels), map(_tuple, sides), strict=True):
        if not before < stride <= LARGEST_STRIDE or stride & (stride - 1):
            raise ValueError(f"stride {stride} is not a power of two from {before + 1} to {LARGEST_STRIDE}")
        if not sizes or not all(1 <= integer(side) <= LARGEST_ANCHOR for side in sizes):
            raise ValueError(f"a level has no anchors, or an anchor size of {sizes!r} is out of range")
        before = stride
        anchors += len(sizes) * math.prod(-(-side // stride) for side in size)
    if anchors > MOST_ANCHORS:
        raise ValueError(f"there are more than {MOST_ANCHORS} anchors")


def check_coding(box_coding: BoxCoding, variances: object, origin: object, landmarks: object) -> None:
    """How raw numbers are boxes and landmarks."""
    if len(_tuple(variances)) != 2:
        raise ValueError(f"two variances and {variances!r} do not fit together")
    if not all(0.0 < number(variance) <= 1.0 for variance in _tuple(variances)):
        raise ValueError("a variance is not between 0 and 1")
    if box_coding is BoxCoding.DISTANCES and variances != (1, 1):
        raise ValueError(f"distances are in units of the stride: their variances are (1, 1), not {variances!r}")
    if number(origin) not in (0.0, 0.5):
        raise ValueError(f"the origin of a cell is 0 or 0.5, not {origin!r}")
    if not 0 <= 2 * integer(landmarks) <= MOST_CHANNELS:
        raise ValueError(f"{landmarks!r} landmarks are out of range 0 to {MOST_CHANNELS // 2}")


def check_mesh(mesh: Mesh, size: tuple[int, int], strides: tuple[int, ...], landmarks: int) -> None:
    """What the dense branch needs of its detector."""
    if max(integer(mesh.channels), integer(mesh.batch)) > MOST_CHANNELS:
        raise ValueError(f"the mesh has more than {MOST_CHANNELS} channels, or faces per batch")
    if len(strides) != MESH_LEVELS or landmarks != MESH_LANDMARKS:
        raise ValueError(f"a mesh needs {MESH_LEVELS} strides and {MESH_LANDMARKS} landmarks")
    if max(strides) >= min(size):
        raise ValueError(f"a mesh needs two cells along each side, and stride {max(strides)} has one")


def integer(value: object) -> int:
    """`value`, if it is an integer."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not an integer")
    return value


def number(value: object) -> float:
    """`value`, if it is a finite number; integers stay integers."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError(f"{value!r} is not a finite number")
    return value


def _tuple(value: object) -> tuple[object, ...]:
    if not isinstance(value, tuple):
        raise TypeError(f"{value!r} is not a tuple")
    return value
