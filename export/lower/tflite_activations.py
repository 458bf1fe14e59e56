"""Lowering of activations: those that TFLite fuses with the operator before, and LeakyReLU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from retinaface_edge.calibration.kernel_parity import leaky_relu_slope

from .tflite_context import NO_ACTIVATION, RELU, RELU6, Context, LoweringError, described, result_of

FUSED = ("Relu", "Clip")
NOTHING_BELOW = ("Relu", "Clip", "MaxPool", "QuantizeLinear", "DequantizeLinear")
"""Operations whose result has no negative value if what they read has none, or that see to it themselves."""


@dataclass(frozen=True)
class Activation:
    """The node that gives an operator's result, which is an activation or the operator itself; and TFLite's code."""

    node: ir.Node
    code: int


def take_activation(context: Context, node: ir.Node) -> Activation:
    """Fuse the activation that alone reads this node's result, if one does. Raises `LoweringError` for other bounds."""
    reader = only_reader(node)
    if reader is None or reader.op_type not in FUSED:
        return Activation(node, NO_ACTIVATION)
    context.fused.add(reader)
    if reader.op_type == "Relu":
        return Activation(reader, RELU)
    bounds = clip_bounds(context, reader)
    if bounds == (0.0, 6.0):
        return Activation(reader, RELU6)
    if bounds == (0.0, np.inf):
        return Activation(reader, RELU)
    low, high = bounds
    raise LoweringError(
        f"{described(reader)} clips to {low:g}…{high:g}; only from 0, and to 6 or nothing, can be lowered"
    )


def only_reader(node: ir.Node) -> ir.Node | None:
    """The one node that reads this node's result, and reads it once; None where the result is also an output."""
    uses = node.outputs[0].uses()
    return next(iter(uses)).node if len(uses) == 1 and not node.outputs[0].is_graph_output() else None


def clip_bounds(context: Context, node: ir.Node) -> tuple[float, float]:
    """What a Clip lets through; they are attributes before opset 11. No bound, or the largest float, is infinity."""
    bounds = []
    for position, (key, default) in enumerate((("min", -np.inf), ("max", np.inf)), start=1):
        given = position < len(node.inputs) and node.inputs[position] is not None
        number = context.constant(node, position).array if given else node.attributes.get_float(key, default)
        bounds.append(float(number))
    largest = float(np.finfo(np.float32).max)
    return (-np.inf if bounds[0] <= -largest else bounds[0]), (np.inf if bounds[1] >= largest else bounds[1])


def is_never_negative(context: Context, value: ir.Value | None) -> bool:
    """Whether the value comes from a ReLU, perhaps by way of pools and quantisation, which keep zero exact."""
    while value is not None and (node := value.producer()) is not None and node.op_type in NOTHING_BELOW:
        if node.op_type == "Relu" or (node.op_type == "Clip" and clip_bounds(context, node)[0] >= 0.0):
            return True
        value = node.inputs[0]
    return False


def refuse_unfused(context: Context, node: ir.Node) -> None:
    """Raise `LoweringError`: only what an operator before it has taken along can be lowered."""
    raise LoweringError(f"{described(node)} does not follow a convolution that it can be fused with")


def lower_leaky_relu(context: Context, node: ir.Node) -> None:
    """In integers with the slope on which kernels agree."""
    source, slope = context.value(node, 0), node.attributes.get_float("alpha", 0.01)
    result = context.quant_params.get(result_of(node))
    if source.quant is not None and result is not None:
        slope = leaky_relu_slope(source.quant.scale, result.scale, slope)
    context.emit(node, "LEAKY_RELU", [source], source.shape, {"alpha": slope})
