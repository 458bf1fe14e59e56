"""Lowering of group normalisation (SCRFD-34G) to float operators: y = (x − mean)/√(variance + ε)·scale + shift.

Mean and variance are those of the picture at hand, so no constants can stand for them: in an INT8 graph the layer stays
float, between a DEQUANTIZE and a QUANTIZE. Its sums are taken in an order that differs from kernel to kernel; behind
it XNNPACK and the reference kernels agree within one quantisation step of the result, not bit for bit.

ONNX has it as GroupNormalization, or, as PyTorch writes it below opset 21, as an InstanceNormalization of an array of
shape (1, groups, rest) between two Reshapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .tflite_activations import only_reader
from .tflite_context import NO_ACTIVATION, Context, Lowered, LoweringError, described, producer_of, result_of

INSTANCE = "InstanceNormalization"
REDUCED = (1, 3)
"""Pixels and the channels of one group, where a value is (1, pixels, groups, channels of a group)."""


def lower_group_normalization(context: Context, node: ir.Node) -> None:
    """Groups by the attribute, scale and shift one per channel (opset 21) or per group (opset 18)."""
    source = context.value(node, 0)
    _normalise(context, node, source, node.attributes.get_int("num_groups", 0))


def lower_instance_normalization(context: Context, node: ir.Node) -> None:
    """Every channel by itself; or groups of channels, where a Reshape has made them one."""
    source, producer = context.value(node, 0), producer_of(node, 0)
    grouped = producer is not None and producer.op_type == "Reshape" and is_grouping_reshape(context, producer)
    _normalise(context, node, source, context.constant(node, 1).array.size if grouped else source.shape[-1])


def is_grouping_reshape(context: Context, node: ir.Node) -> bool:
    """Whether a Reshape only makes groups of channels for an InstanceNormalization, or channels of them again."""
    batch, height, width, channels = context.value(node, 0).shape
    shape = [int(n) for n in context.constant(node, 1).array]
    reader, producer = only_reader(node), producer_of(node, 0)
    if reader is not None and reader.op_type == INSTANCE:
        groups = context.constant(reader, 1).array.size
        rest = prod((height, width, channels)) // groups
        return channels % groups == 0 and len(shape) == 3 and _is(shape, (batch, groups, rest))
    before = None if producer is None else producer_of(producer, 0)
    if producer is None or producer.op_type != INSTANCE or before is None or before.op_type != "Reshape":
        return False
    return is_grouping_reshape(context, before) and _is(shape, (batch, channels, height, width))


def _is(shape: list[int], wanted: tuple[int, ...]) -> bool:
    """Whether a Reshape's constant gives that shape, -1 being what is left; 0 keeps the first side only here."""
    known = [wanted[0] if axis == 0 and side == 0 else side for axis, side in enumerate(shape)]
    return (
        len(known) == len(wanted)
        and known.count(-1) <= 1
        and all(side in (-1, want) for side, want in zip(known, wanted, strict=True))
    )


def _normalise(context: Context, node: ir.Node, source: Lowered, groups: int) -> None:
    shape, channels = source.shape, source.shape[-1]
    scale, shift = (context.constant(node, position).array.astype(np.float32) for position in (1, 2))
    if groups < 1 or channels % groups:
        raise LoweringError(f"{described(node)} normalises {channels} channels in {groups} groups")
    if scale.shape != shift.shape or scale.shape not in ((groups,), (channels,)):
        raise LoweringError(
            f"{described(node)} has scales of shape {scale.shape}; one per channel or per group is expected"
        )
    name = result_of(node)
    parts = (shape[1] * shape[2], groups, channels // groups)
    grouped = _reshaped(context, f"{name}.groups", context.real(source), (1, *parts))
    axes = context.add_constant(f"{name}.axes", np.array(REDUCED, np.int32))
    each, one = (1, *parts), (1, 1, groups, 1)
    mean = _operate(context, f"{name}.mean", "MEAN", [grouped, axes], one, {"keepDims": True})
    squares = _operate(context, f"{name}.squares", "SQUARED_DIFFERENCE", [grouped, mean], each)
    variance = _operate(context, f"{name}.variance", "MEAN", [squares, axes], one, {"keepDims": True})
    epsilon = context.add_constant(
        f"{name}.epsilon", np.array([node.attributes.get_float("epsilon", 1e-5)], np.float32)
    )
    fused = {"fusedActivationFunction": NO_ACTIVATION}
    safe = _operate(context, f"{name}.variance.safe", "ADD", [variance, epsilon], one, fused)
    factor = _operate(context, f"{name}.factor", "RSQRT", [safe], one)
    centred = _operate(context, f"{name}.centred", "SUB", [grouped, mean], each, fused)
    normal = _operate(context, f"{name}.normal", "MUL", [centred, factor], each, fused)
    scales = context.add_constant(f"{name}.scale", _by_group(scale, groups))
    shifts = context.add_constant(f"{name}.shift", _by_group(shift, groups))
    scaled = _operate(context, f"{name}.scaled", "MUL", [normal, scales], each, fused)
    shifted = _operate(context, f"{name}.shifted", "ADD", [scaled, shifts], each, fused)
    context.values[node.outputs[0]] = Lowered(shape, real=_reshaped(context, name, shifted, shape))


def _by_group(numbers: NDArray[np.float32], groups: int) -> NDArray[np.float32]:
    """(groups, channels of a group), or (groups, 1) where the channels of a group share one."""
    return numbers.reshape(groups, -1)


def _operate(
    context: Context,
    name: str,
    operator: str,
    inputs: list[int],
    shape: tuple[int, ...],
    options: Mapping[str, Any] | None = None,
) -> int:
    result = context.add_real(name, shape)
    context.add_operator(operator, inputs, result, options)
    return result


def _reshaped(context: Context, name: str, source: int, shape: tuple[int, ...]) -> int:
    constant = context.add_constant(f"{name}.shape", np.array(shape, np.int32))
    return _operate(context, name, "RESHAPE", [source, constant], shape, {"newShape": list(shape)})
