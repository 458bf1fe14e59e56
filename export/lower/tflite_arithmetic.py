"""Lowering of sums of two values and of products with constants."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .tflite_activations import fused_activation
from .tflite_context import NO_ACTIVATION, Context, LoweringError, described, name_of
from .tflite_convolutions import scale_factors


def lower_add(context: Context, node: ir.Node) -> None:
    """ADD, with the ReLU or ReLU6 that follows.

    XNNPACK and the reference kernels give the same integers where the scales read are powers of two of the result's,
    at least 1 where no ReLU follows: their rounding differs for negative halves only. Calibration sees to that.
    """
    terms = [context.value(node, 0), context.value(node, 1)]
    if terms[0].shape != terms[1].shape:
        raise LoweringError(f"{described(node)} adds shapes {terms[0].shape} and {terms[1].shape}")
    activation = fused_activation(context, node)
    options = {"fusedActivationFunction": activation.code}
    context.emit(activation.node, "ADD", terms, terms[0].shape, options)


def lower_scale(context: Context, node: ir.Node) -> None:
    """A Mul or Div by constants that no convolution has taken along: a float MUL."""
    if node.outputs[0] in context.values:
        return
    position = 1 if context.is_constant(node, 1) or not context.is_constant(node, 0) else 0
    source = context.value(node, 1 - position)
    factors = scale_factors(context, node, source.shape[-1])
    if factors is None:
        raise LoweringError(f"{described(node)} does not scale by one finite number, or one a channel")
    constant = context.add_constant(name_of(node, position), factors.astype(np.float32))
    options = {"fusedActivationFunction": NO_ACTIVATION}
    context.emit_real(node, "MUL", [context.real(source), constant], source.shape, options)
