"""Backbones as data: one table of blocks per network, found by name."""

from __future__ import annotations

import re

from retinaface_edge.runtime.errors import RetinaFaceEdgeError

from .mobilenet_v1 import mobilenet_v1
from .mobilenet_v2 import mobilenet_v2
from .one_megabyte import rfb, slim
from .resnet import BLOCKS, resnet
from .table import Backbone, Stem, Table

__all__ = ["NAMES", "Backbone", "BackboneError", "Stem", "Table", "backbone_table"]

_FIXED = {"mobilenet_v2": mobilenet_v2, "slim": slim, "rfb": rfb}
NAMES = (
    *(f"mobilenet_v1_{width}" for width in ("0.25", "0.5", "1")),
    "mobilenet_v2",
    *(f"resnet{depth}" for depth in BLOCKS),
    "slim",
    "rfb",
)
"""What people use; MobileNetV1 has any width between 0.125 and 2."""


class BackboneError(RetinaFaceEdgeError):
    """A backbone that does not exist, or that lacks what was asked of it."""


def backbone_table(name: str) -> Table:
    """The backbone of that name. Raises `BackboneError` for another one."""
    if name in _FIXED:
        return _FIXED[name]()
    if match := re.fullmatch(r"resnet(\d{2,3})", name):
        if int(match[1]) in BLOCKS:
            return resnet(int(match[1]))
    elif (match := re.fullmatch(r"mobilenet_v1_(\d(?:\.\d{1,4})?)", name)) and 0.125 <= float(match[1]) <= 2.0:
        return mobilenet_v1(float(match[1]))
    raise BackboneError(f"there is no backbone {name!r}; choose one of {', '.join(NAMES)}")
