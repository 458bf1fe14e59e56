"""Lowering of QuantizeLinear, DequantizeLinear and the image input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from retinaface_edge.runtime.ops.postprocess import QuantParams

from .tflite_context import (
    NO_ACTIVATION,
    Constant,
    Context,
    Lowered,
    LoweringError,
    described,
    name_of,
    result_of,
)
from .tflite_schema import Quantisation


def lower_cast(context: Context, node: ir.Node) -> None:
    """The image's bytes as floats."""
    image = context.value(node, 0)
    if node.attributes.get_int("to") != ir.DataType.FLOAT or image.integer is None:
        raise LoweringError(f"{described(node)} is not from the image to float")
    context.emit_real(node, "CAST", [image.integer], image.shape)


def lower_sub(context: Context, node: ir.Node) -> None:
    """The mean's subtraction from the image."""
    source, constant = context.value(node, 0), context.constant(node, 1)
    if constant.array.shape != source.shape[-1:]:
        raise LoweringError(f"{described(node)} does not subtract one number per channel")
    subtrahend = context.add_constant(name_of(node, 1), constant.array)
    options = {"fusedActivationFunction": NO_ACTIVATION}
    context.emit_real(node, "SUB", [context.real(source), subtrahend], source.shape, options)


def lower_quantize(context: Context, node: ir.Node) -> None:
    """Integers, made where the value has none; anew where it has them with other quantisation parameters."""
    value, quant = context.value(node, 0), context.quant_of(node)
    if value.integer is None:
        value.quant = quant
        value.integer = context.add_integer(result_of(node), value.shape, quant)
        context.add_operator("QUANTIZE", (context.real(value),), value.integer)
    elif value.quant is None:
        raise LoweringError(f"{described(node)} quantises the image's bytes, which are integers already")
    elif value.quant != quant or value.centre is not None:
        source = value.integer if value.centre is None else context.real(value)
        result = context.add_integer(result_of(node), value.shape, quant)
        context.add_operator("QUANTIZE", (source,), result)
        value = Lowered(value.shape, integer=result, quant=quant)
    context.values[node.outputs[0]] = value


def lower_dequantize(context: Context, node: ir.Node) -> None:
    """A constant keeps its integers and scales; a value is both its integers and what they stand for."""
    if context.is_constant(node, 0):
        integers, scale, zero_point = (context.constant(node, position).array for position in range(3))
        if np.any(zero_point):
            raise LoweringError(f"{described(node)}: a constant's zero point is not 0")
        context.constants[node.outputs[0]] = Constant(integers, scale)
    elif context.value(node, 0).quant is None:
        context.values[node.outputs[0]] = _centred_image(context, node)
    elif context.value(node, 0).quant != context.quant_of(node):
        raise LoweringError(f"{described(node)} has another scale or zero point than what made the integers it reads")
    else:
        context.values[node.outputs[0]] = context.value(node, 0)


def _centred_image(context: Context, node: ir.Node) -> Lowered:
    """The uint8 image as int8, where real = pixel; its per-channel zero point is kept aside."""
    image, scale, centre = context.value(node, 0), *(context.constant(node, index).array for index in (1, 2))
    if image.integer is None or node.attributes.get_int("axis") != 3 or np.any(scale != 1.0):
        raise LoweringError(f"{described(node)} is not the mean subtraction of the image")
    # Quantising a uint8 tensor of scale 1 and zero point 0 to int8 with zero point −128 subtracts 128: exact.
    source = replace(context.tensors[image.integer], quantisation=Quantisation((1.0,), (0,)))
    context.tensors[image.integer] = source
    quant = QuantParams(1.0, 0)
    result = context.add_integer(f"{source.name}.int8", image.shape, quant)
    context.add_operator("QUANTIZE", (image.integer,), result)
    return Lowered(image.shape, integer=result, quant=quant, centre=centre.astype(np.int64))
