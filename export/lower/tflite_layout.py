"""Lowering of operators that only move values: transpose, reshape, concatenate, slice."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from .tflite_context import NO_ACTIVATION, Context, Lowered, LoweringError, described, name_of, producer_of, result_of
from .tflite_normalisation import is_grouping_reshape
from .tflite_schema import Tensor

TO_NCHW, TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]
SWAPPED_NCHW, SWAPPED_TO_NHWC = [0, 3, 2, 1], [0, 2, 1, 3]
"""Width and channels of an NCHW value exchanged; and the same on its way to NHWC."""
NHWC_AXES = (0, 3, 1, 2)
"""Where each axis of NCHW is in NHWC."""


def lower_transpose(context: Context, node: ir.Node) -> None:
    """Nothing between NHWC and NCHW, since all values are NHWC here; TRANSPOSE where width and channels swap."""
    permutation, source = list(node.attributes.get_ints("perm", ())), context.value(node, 0)
    if permutation in (TO_NCHW, TO_NHWC):
        context.values[node.outputs[0]] = source
        return
    if permutation not in (SWAPPED_NCHW, SWAPPED_TO_NHWC):
        raise LoweringError(
            f"{described(node)} permutes by {permutation}, which neither goes between NHWC and NCHW nor exchanges "
            "width and channels"
        )
    batch, height, width, channels = source.shape
    order = context.add_constant(f"{node.name}.order", np.array([0, 1, 3, 2], np.int32))
    context.share_quant(node, source)
    context.emit(node, "TRANSPOSE", [source], (batch, height, channels, width), {}, [order])


def lower_reshape(context: Context, node: ir.Node) -> None:
    """RESHAPE of NHWC values, between Transposes or on the way out."""
    source = context.value(node, 0)
    if is_grouping_reshape(context, node):
        context.values[node.outputs[0]] = source
        return
    shape = tuple(int(n) for n in context.constant(node, 1).array)
    producer = producer_of(node, 0)
    last = node.outputs[0].is_graph_output() and not node.outputs[0].uses()
    if last:
        shape = _filled(shape, source.shape)
    nhwc = (
        producer is not None
        and producer.op_type == "Transpose"
        and all(reader.op_type == "Transpose" for reader in node.outputs[0].consumers())
    )
    if not nhwc or not (last or len(shape) == 4) or min(shape) < 1 or prod(shape) != prod(source.shape):
        raise LoweringError(f"{described(node)} does not rearrange NHWC values between Transposes")
    constant = context.add_constant(f"{node.name}.shape", np.array(shape, np.int32))
    context.share_quant(node, source)
    context.emit(node, "RESHAPE", [source], shape, {"newShape": list(shape)}, [constant])


def _filled(shape: tuple[int, ...], source: tuple[int, ...]) -> tuple[int, ...]:
    """ONNX's 0 (as it was) and -1 (what is left) replaced."""
    known = [source[axis] if side == 0 and axis < len(source) else side for axis, side in enumerate(shape)]
    rest = prod(side for side in known if side != -1)
    return tuple(prod(source) // rest if side == -1 and rest > 0 else side for side in known)


def lower_concat(context: Context, node: ir.Node) -> None:
    """CONCATENATION of channels; or of bytes around the image."""
    if any(context.is_constant(node, index) for index in range(len(node.inputs))):
        _lower_border(context, node)
        return
    parts = [context.value(node, index) for index in range(len(node.inputs))]
    if node.attributes.get_int("axis") != 1:
        raise LoweringError(f"{described(node)} does not join channels")
    quant_params = {part.quant for part in parts}
    if len(quant_params - {None}) > 1:
        raise LoweringError(f"{described(node)} joins values with different quantisation parameters")
    if None not in quant_params:
        context.share_quant(node, parts[0])
    shape = (*parts[0].shape[:3], sum(part.shape[3] for part in parts))
    context.emit(node, "CONCATENATION", parts, shape, {"axis": 3, "fusedActivationFunction": NO_ACTIVATION})


def _lower_border(context: Context, node: ir.Node) -> None:
    """Rows or columns of bytes beside the image, both still NHWC (`uint8_stem`)."""
    axis = node.attributes.get_int("axis")
    found = [
        context.add_constant(name_of(node, index), context.constant(node, index).array)
        if context.is_constant(node, index)
        else context.value(node, index).integer
        for index in range(len(node.inputs))
    ]
    parts = tuple(part for part in found if part is not None)
    kinds = {context.tensors[part].dtype for part in parts}
    if axis not in (1, 2) or len(parts) < len(found) or kinds != {np.dtype(np.uint8)}:
        raise LoweringError(f"{described(node)} does not put a border of bytes around the image")
    shapes = [context.tensors[part].shape for part in parts]
    shape = tuple(sum(s[axis] for s in shapes) if i == axis else n for i, n in enumerate(shapes[0]))
    result = context.add_tensor(Tensor(result_of(node), np.dtype(np.uint8), shape))
    context.add_operator("CONCATENATION", parts, result, {"axis": axis, "fusedActivationFunction": NO_ACTIVATION})
    context.values[node.outputs[0]] = Lowered(shape, integer=result)


def lower_split(context: Context, node: ir.Node) -> None:
    """A SLICE for each part of the channels, rows or columns."""
    source, axis = context.value(node, 0), _axis(node, node.attributes.get_int("axis", 0))
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        sizes = [int(n) for n in context.constant(node, 1).array]
    else:
        most = -(-source.shape[axis] // len(node.outputs))
        last = source.shape[axis] - most * (len(node.outputs) - 1)
        sizes = list(node.attributes.get_ints("split", [most] * (len(node.outputs) - 1) + [last]))
    if len(sizes) != len(node.outputs) or min(sizes) < 1 or sum(sizes) != source.shape[axis]:
        raise LoweringError(f"{described(node)} splits {source.shape[axis]} into {sizes}")
    begin = 0
    for result, size in zip(node.outputs, sizes, strict=True):
        _cut(context, node, result, source, axis, begin, size)
        begin += size


def lower_slice(context: Context, node: ir.Node) -> None:
    """SLICE of neighbouring channels, rows or columns."""
    source = context.value(node, 0)
    starts, ends = (context.constant(node, index).array.reshape(-1).tolist() for index in (1, 2))
    axes = context.constant(node, 3).array.reshape(-1).tolist() if len(node.inputs) > 3 else list(range(len(starts)))
    steps = context.constant(node, 4).array.reshape(-1).tolist() if len(node.inputs) > 4 else [1] * len(starts)
    if len(starts) != 1 or len(ends) != 1 or axes == [0] or steps != [1]:
        raise LoweringError(f"{described(node)} does not take neighbours along one axis of a picture")
    axis = _axis(node, int(axes[0]))
    begin, end, _ = slice(starts[0], ends[0]).indices(source.shape[axis])
    _cut(context, node, node.outputs[0], source, axis, begin, end - begin)


def _axis(node: ir.Node, axis: int) -> int:
    """An axis of NCHW in NHWC."""
    if not -3 <= axis < 4 or axis == 0:
        raise LoweringError(f"{described(node)} cuts along axis {axis}; only channels, rows and columns can be cut")
    return NHWC_AXES[axis]


def _cut(context: Context, node: ir.Node, result: ir.Value, source: Lowered, axis: int, begin: int, size: int) -> None:
    """SLICE of `size` from `begin` on; integers stay as they are."""
    corner = np.zeros(4, np.int32)
    corner[axis] = begin
    shape = tuple(size if index == axis else side for index, side in enumerate(source.shape))
    name = result.name or ""
    constants = [
        context.add_constant(f"{name}.begin", corner),
        context.add_constant(f"{name}.size", np.array(shape, np.int64).astype(np.int32)),
    ]
    if source.integer is not None and source.quant is not None and source.centre is None:
        made = context.add_integer(name, shape, source.quant)
        context.add_operator("SLICE", [source.integer, *constants], made)
        context.values[result] = Lowered(shape, integer=made, quant=source.quant)
    else:
        made = context.add_real(name, shape)
        context.add_operator("SLICE", [context.real(source), *constants], made)
        context.values[result] = Lowered(shape, real=made)
