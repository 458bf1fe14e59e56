"""Lowering of upsampling, by the nearest pixel and bilinear."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

import numpy as np
import onnx_ir as ir

from .tflite_context import Context, Lowered, LoweringError, described

REACH = 1 << 16
"""Factors of an enlargement beyond this are refused rather than checked pixel by pixel."""
HALF_PIXELS = {"alignCorners": False, "halfPixelCenters": True}
BILINEAR = {
    "align_corners": {"alignCorners": True, "halfPixelCenters": False},
    "half_pixel": HALF_PIXELS,
    "pytorch_half_pixel": HALF_PIXELS,
}
"""ONNX's coordinates that TFLite has for bilinear upsampling; PyTorch's differ for results of one pixel only."""


def lower_resize(context: Context, node: ir.Node) -> None:
    """By whole factors: RESIZE_NEAREST_NEIGHBOR where each pixel is repeated, or RESIZE_BILINEAR."""
    source = context.value(node, 0)
    factors = _factors(context, node, source)
    coordinates = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    bilinear = node.op_type == "Resize" and node.attributes.get_string("mode", "nearest") == "linear"
    if factors is not None and bilinear and coordinates in BILINEAR:
        operator, options = "RESIZE_BILINEAR", BILINEAR[coordinates]
    elif factors is not None and all(_repeats(node, factor) for factor in factors):
        operator, options = "RESIZE_NEAREST_NEIGHBOR", {"alignCorners": False, "halfPixelCenters": False}
    else:
        raise LoweringError(f"{described(node)} is not upsampling by a whole factor, by the nearest pixel or bilinear")
    size = (source.shape[1] * factors[0], source.shape[2] * factors[1])
    context.share_quant(node, source)  # a value between pixels is between their values, so it needs no other range
    constant = context.add_constant(f"{node.name}.size", np.array(size, np.int32))
    context.emit(node, operator, [source], (1, *size, source.shape[3]), options, [constant])


def _factors(context: Context, node: ir.Node, source: Lowered) -> tuple[int, int] | None:
    """How often rows and columns are repeated, by scales or by sizes; None if not a whole number of times."""
    if len(node.inputs) == 4 and not (context.is_constant(node, 2) and context.constant(node, 2).array.size):
        batch, height, width, channels = source.shape
        before = np.array([batch, channels, height, width])
        sizes = context.constant(node, 3).array
        scales = sizes / before if sizes.shape == (4,) else np.zeros(0)
    elif len(node.inputs) == (2 if node.op_type == "Upsample" else 3):
        scales = context.constant(node, len(node.inputs) - 1).array
    else:
        return None
    if scales.shape != (4,) or not np.array_equal(scales, np.rint(scales)) or not scales[0] == scales[1] == 1:
        return None
    return int(scales[2]), int(scales[3])


def _repeats(node: ir.Node, factor: int) -> bool:
    """Whether enlarging by `factor` repeats each pixel that often, whatever the rule for coordinates is called."""
    form = (
        node.attributes.get_string("mode", "nearest"),
        node.attributes.get_string("coordinate_transformation_mode", "half_pixel"),
        node.attributes.get_string("nearest_mode", "round_prefer_floor"),
    )
    if node.op_type == "Upsample":
        form = (form[0], "asymmetric", "floor")
    if form == ("nearest", "asymmetric", "floor"):
        return True
    offset = {"asymmetric": Fraction(0), "half_pixel": Fraction(1, 2), "half_pixel_symmetric": Fraction(1, 2)}.get(
        form[1]
    )
    rounds = ROUNDINGS.get(form[2])
    if form[0] != "nearest" or offset is None or rounds is None or not 0 < factor <= REACH:
        return False
    # Of a pixel in the middle, for those at the edges are clamped to themselves.
    return all(rounds((index + offset) / factor - offset) == index // factor for index in range(factor, 2 * factor))


ROUNDINGS = {
    "floor": floor,
    "ceil": ceil,
    "round_prefer_floor": lambda place: ceil(place - Fraction(1, 2)),
    "round_prefer_ceil": lambda place: floor(place + Fraction(1, 2)),
}
"""ONNX's `nearest_mode`: which pixel a coordinate is."""
