"""Lowering of pools: the largest value of each window, or the mean."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from .tflite_activations import is_never_negative
from .tflite_context import NO_ACTIVATION, Context, Lowered, LoweringError, described
from .tflite_windows import SAME, VALID, Windows, pad, pad_with_lowest, windows


def lower_max_pool(context: Context, node: ir.Node) -> None:
    """MAX_POOL_2D, exact in integers too, for their order is that of the values.

    ONNX pads with nothing, as SAME does. Where SAME would pad elsewhere, zeros do after a ReLU, which windows hold
    anyway or are below all they hold; elsewhere the lowest number there is.
    """
    source, around = _read(context, node)
    if around.dilations != (1, 1):
        raise LoweringError(f"{described(node)} is dilated by {list(around.dilations)}")
    if len(node.outputs) > 1 and node.outputs[1].name:
        raise LoweringError(f"{described(node)} also gives the places of its values")
    if not around.is_same and around.pads:
        padded = pad if is_never_negative(context, node.inputs[0]) else pad_with_lowest
        source = padded(context, node, source, around.padding)
    _emit(context, node, "MAX_POOL_2D", source, around)


def lower_average_pool(context: Context, node: ir.Node) -> None:
    """AVERAGE_POOL_2D. SAME averages what is inside, as ONNX does unless padding counts; that is then a PAD."""
    source, around = _read(context, node)
    if around.dilations != (1, 1):
        raise LoweringError(f"{described(node)} is dilated by {list(around.dilations)}")
    written = [(side.before, side.after) for side in around.sides]
    counts = bool(node.attributes.get_int("count_include_pad", 0)) and any(map(any, written))
    if around.pads and counts:
        if any(side.padding[1] > side.after for side in around.sides):
            raise LoweringError(f"{described(node)} counts padding in some windows and not in others")
        source = pad(context, node, source, around.padding)
    elif around.pads and not around.is_same:
        raise LoweringError(f"{described(node)} pads by {written}, which is not how TFLite's SAME pads")
    _emit(context, node, "AVERAGE_POOL_2D", source, around, padded=counts)


def _read(context: Context, node: ir.Node) -> tuple[Lowered, Windows]:
    source = context.value(node, 0)
    if source.centre is not None or source.quant is None:
        source = Lowered(source.shape, real=context.real(source))
    return source, windows(node, source, node.attributes.get_ints("kernel_shape", ()))


def _emit(
    context: Context, node: ir.Node, operator: str, source: Lowered, around: Windows, padded: bool = False
) -> None:
    height, width = list(node.attributes.get_ints("kernel_shape", ()))
    is_padded = padded or not around.is_same
    options: dict[str, Any] = {
        "padding": VALID if is_padded else SAME,
        **around.strides,
        "filterHeight": height,
        "filterWidth": width,
        "fusedActivationFunction": NO_ACTIVATION,
    }
    context.share_quant(node, source)
    context.emit(node, operator, [source], (1, *around.outputs, source.shape[3]), options)
