"""Lowering of convolutions: plain, depthwise, strided, dilated; with the scale and the activation that follow them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from .tflite_activations import Activation, only_reader, take_activation
from .tflite_arithmetic import scale_factors
from .tflite_context import Constant, Context, Lowered, LoweringError, described, name_of
from .tflite_folding import add_reshape, fold_columns, folded_image
from .tflite_windows import SAME, VALID, pad, windows

SCALES = ("Mul", "Div")


@dataclass(frozen=True)
class _Kind:
    """How TFLite names a convolution and orders its weights."""

    operator: str
    order: tuple[int, ...]
    """Of ONNX's weights (outputs, inputs, height, width)."""
    channels: int
    """Which axis, in that order, is the outputs."""


CONVOLUTION = _Kind("CONV_2D", (0, 2, 3, 1), 0)
DEPTHWISE = _Kind("DEPTHWISE_CONV_2D", (1, 2, 3, 0), 3)


def lower_conv(context: Context, node: ir.Node) -> None:
    """CONV_2D or DEPTHWISE_CONV_2D, behind a PAD where SAME would pad elsewhere."""
    source, weight, bias = context.value(node, 0), context.constant(node, 1), context.constant(node, 2)
    around = windows(node, source, weight.array.shape[2:] if weight.array.ndim == 4 else ())
    kind = _kind(node, source, weight)
    if weight.scale is None:
        source = Lowered(source.shape, real=context.real(source))
    last, weight, bias = _with_scale(context, node, weight, bias)
    activation, folded = take_activation(context, last), None
    if kind is CONVOLUTION and weight.scale is not None:
        folded = fold_columns(source, weight, bias, around, context.image_columns)
    padding = around.padding
    if folded is not None:
        weight, bias, around, padding = folded.weight, folded.bias, folded.windows, folded.padding
    shape = (1, *around.outputs, weight.array.shape[0])
    same = source.centre is None and around.is_same
    if not same and around.pads:
        source = pad(context, node, source, padding)
    if folded is not None:
        source = folded_image(context, source, folded.fold)

    options: dict[str, Any] = {
        "padding": SAME if same else VALID,
        **around.strides,
        "fusedActivationFunction": activation.code,
    }
    if around.dilations != (1, 1):
        options["dilationHFactor"], options["dilationWFactor"] = around.dilations
    if kind is DEPTHWISE:
        options["depthMultiplier"] = 1
    _emit(context, node, kind, (source, weight, bias), activation, shape, options)
    if folded is not None and folded.columns > 1:
        _unfold(context, activation.node, folded.columns)


def _unfold(context: Context, node: ir.Node, columns: int) -> None:
    """The columns that a folded convolution made as channels, as columns."""
    value = context.values[node.outputs[0]]
    assert value.integer is not None and value.quant is not None
    _, height, width, channels = value.shape
    shape = (1, height, width * columns, channels // columns)
    tensor = context.tensors[value.integer]
    result = context.add_integer(tensor.name, shape, value.quant)
    context.tensors[value.integer] = replace(tensor, name=f"{tensor.name}.folded")
    add_reshape(context, value.integer, result)
    context.values[node.outputs[0]] = Lowered(shape, integer=result, quant=value.quant)


def _emit(
    context: Context,
    node: ir.Node,
    kind: _Kind,
    operands: tuple[Lowered, Constant, Constant],
    activation: Activation,
    shape: tuple[int, ...],
    options: dict[str, Any],
) -> None:
    """The operator itself: integers where the weights are, floats elsewhere."""
    source, weight, bias = operands
    names = name_of(node, 1), name_of(node, 2)
    kernel = np.ascontiguousarray(weight.array.transpose(kind.order))
    if weight.scale is None:
        constants = [context.add_constant(names[0], kernel), context.add_constant(names[1], bias.array)]
        context.emit_real(activation.node, kind.operator, [context.real(source), *constants], shape, options)
        return
    if source.quant is None or source.integer is None:
        raise LoweringError(f"{described(node)} has integer weights but an input without quantisation parameters")
    integers, steps = bias.array.astype(np.int64), (weight.scale * np.float32(source.quant.scale)).astype(np.float32)
    if source.centre is not None:
        integers = integers - weight.array.astype(np.int64).sum(axis=(2, 3)) @ source.centre
    constants = [
        context.add_constant(names[0], kernel, weight.scale, kind.channels),
        context.add_constant(names[1], integers.astype(np.int32), steps),
    ]
    context.emit_integer(activation.node, kind.operator, [source.integer, *constants], shape, options)


def _kind(node: ir.Node, source: Lowered, weight: Constant) -> _Kind:
    group = node.attributes.get_int("group", 1)
    if group > 1 and not group == source.shape[3] == weight.array.shape[0]:
        raise LoweringError(f"{described(node)} has {group} groups; only 1, or one per channel, can be lowered")
    return DEPTHWISE if group > 1 else CONVOLUTION


def _with_scale(
    context: Context, node: ir.Node, weight: Constant, bias: Constant
) -> tuple[ir.Node, Constant, Constant]:
    """The last node that weights and bias stand for: the Mul or Div by constants that alone reads the convolution.

    Floats are multiplied; integers stay as they are and their scales are multiplied, which needs positive factors.
    """
    scale = only_reader(node)
    if scale is None or scale.op_type not in SCALES:
        return node, weight, bias
    factors = scale_factors(context, scale, weight.array.shape[0])
    if factors is None or (weight.scale is not None and factors.min() <= 0.0):
        return node, weight, bias
    context.fused.add(scale)
    if weight.scale is not None:
        scales = np.broadcast_to(weight.scale, factors.shape) * factors
        return scale, replace(weight, scale=scales.astype(np.float32)), bias
    weights = (weight.array * factors[:, None, None, None]).astype(weight.array.dtype)
    return scale, replace(weight, array=weights), replace(bias, array=(bias.array * factors).astype(bias.array.dtype))
