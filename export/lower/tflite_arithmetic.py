"""Lowering of sums and products: of two values, or with constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .tflite_activations import take_activation
from .tflite_context import Context, LoweringError, described, name_of


def lower_add(context: Context, node: ir.Node) -> None:
    """ADD, with the ReLU or ReLU6 that follows.

    XNNPACK and the reference kernels give the same integers where the scales read are powers of two of the result's,
    at least 1 where no ReLU follows: they round negative halves differently. Calibration sees to that.
    """
    constants = [position for position in range(2) if context.is_constant(node, position)]
    if constants:
        _add_constant(context, node, constants[0])
        return
    terms = [context.value(node, 0), context.value(node, 1)]
    if terms[0].shape != terms[1].shape:
        raise LoweringError(f"{described(node)} adds shapes {terms[0].shape} and {terms[1].shape}")
    activation = take_activation(context, node)
    options = {"fusedActivationFunction": activation.code}
    context.emit(activation.node, "ADD", terms, terms[0].shape, options)


def _add_constant(context: Context, node: ir.Node, position: int) -> None:
    """A float ADD of one number, or one per channel."""
    source = context.value(node, 1 - position)
    numbers = by_channel(context.constant(node, position).array, source.shape[-1])
    if numbers is None:
        raise LoweringError(f"{described(node)} does not add one number, or one per channel")
    _with_constant(context, node, "ADD", position, numbers)


def lower_scale(context: Context, node: ir.Node) -> None:
    """A Mul or Div by constants that no convolution has taken along: a float MUL."""
    position = 1 if context.is_constant(node, 1) or not context.is_constant(node, 0) else 0
    factors = scale_factors(context, node, context.value(node, 1 - position).shape[-1])
    if factors is None:
        raise LoweringError(f"{described(node)} does not scale by one finite number, or one per channel")
    _with_constant(context, node, "MUL", position, factors)


def _with_constant(context: Context, node: ir.Node, operator: str, position: int, numbers: NDArray[np.float64]) -> None:
    source, activation = context.value(node, 1 - position), take_activation(context, node)
    constant = context.add_constant(name_of(node, position), numbers.astype(np.float32))
    options = {"fusedActivationFunction": activation.code}
    context.emit_real(activation.node, operator, [context.real(source), constant], source.shape, options)


def scale_factors(context: Context, node: ir.Node, channels: int) -> NDArray[np.float64] | None:
    """The factor of each channel of a Mul or Div by constants, (channels,); None where it is something else."""
    positions = [position for position in range(2) if context.is_constant(node, position)]
    if not positions or (node.op_type == "Div" and positions[0] != 1):
        return None
    factors = by_channel(context.constant(node, positions[0]).array, channels)
    if factors is None or not np.all(np.isfinite(factors)) or (node.op_type == "Div" and not factors.all()):
        return None
    return 1.0 / factors if node.op_type == "Div" else factors


def by_channel(array: NDArray[Any], channels: int) -> NDArray[np.float64] | None:
    """A constant broadcast to NCHW as (channels,); None unless it has one number for all, or one per channel."""
    shape = array.shape
    if not all(side == 1 or (side == channels and len(shape) - axis == 3) for axis, side in enumerate(shape)):
        return None
    return np.broadcast_to(array.astype(np.float64).reshape(-1), (channels,))
