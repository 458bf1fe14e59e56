"""Sliding windows of convolutions and pools: how many there are, and what padding TFLite needs for them.

Padding is explicit only where TFLite's SAME would pad elsewhere than ONNX says. With stride 2, SAME pads at the bottom
and right, PyTorch at the top and left as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from .tflite_context import (
    LARGEST_SIDE,
    NO_ACTIVATION,
    SHIFT,
    Context,
    Lowered,
    LoweringError,
    described,
    quantisation_of,
)
from .tflite_schema import Tensor

SAME, VALID = 0, 1
LOWEST = np.finfo(np.float32).min


@dataclass(frozen=True)
class Side:
    """Height or width of what windows slide over, with the kernel's reach, stride and padding along it."""

    size: int
    kernel: int
    stride: int
    before: int
    after: int
    rounds_up: bool = False
    """Whether a last window that is only partly inside counts (ONNX's `ceil_mode`)."""

    @property
    def outputs(self) -> int:
        """How many windows there are."""
        room = self.size + self.before + self.after - self.kernel
        if not self.rounds_up:
            return room // self.stride + 1
        outputs = -(-room // self.stride) + 1
        # A window that would begin in the padding behind the values is left out.
        return outputs - ((outputs - 1) * self.stride >= self.size + self.before)

    @property
    def padding(self) -> tuple[int, int]:
        """Before and after, without what no window reaches."""
        return self.before, max((self.outputs - 1) * self.stride + self.kernel - self.before - self.size, 0)

    @property
    def is_same(self) -> bool:
        """Whether SAME pads like this: half of what makes ceil(size / stride) outputs, the smaller half before."""
        total = max((-(-self.size // self.stride) - 1) * self.stride + self.kernel - self.size, 0)
        return self.outputs == -(-self.size // self.stride) and self.padding == (total // 2, total - total // 2)


@dataclass(frozen=True)
class Windows:
    """The windows of one node over both sides of its input."""

    sides: tuple[Side, Side]
    dilations: tuple[int, int]

    @property
    def outputs(self) -> tuple[int, int]:
        """Rows and columns of the result."""
        return self.sides[0].outputs, self.sides[1].outputs

    @property
    def is_same(self) -> bool:
        """Whether TFLite's SAME pads both sides like this."""
        return all(side.is_same for side in self.sides)

    @property
    def padding(self) -> list[tuple[int, int]]:
        """(before, after) of height and width."""
        return [side.padding for side in self.sides]

    @property
    def pads(self) -> bool:
        """Whether a window reaches outside."""
        return any(amount for sides in self.padding for amount in sides)

    @property
    def strides(self) -> dict[str, int]:
        """The strides as TFLite's options."""
        return {"strideH": self.sides[0].stride, "strideW": self.sides[1].stride}


def windows(node: ir.Node, source: Lowered, kernel: Sequence[int]) -> Windows:
    """The windows of a Conv or pool with `kernel` (height, width) over `source`. Raises `LoweringError`."""
    pads, strides, dilations = (
        list(node.attributes.get_ints(key, default))
        for key, default in (("pads", [0, 0, 0, 0]), ("strides", [1, 1]), ("dilations", [1, 1]))
    )
    if not all(0 < stride <= LARGEST_SIDE for stride in strides):
        raise LoweringError(f"{described(node)} has strides {strides}")
    if len(dilations) != 2 or not all(0 < dilation <= LARGEST_SIDE for dilation in dilations):
        raise LoweringError(f"{described(node)} is dilated by {dilations}")
    reach = [(side - 1) * dilation + 1 for side, dilation in zip(kernel, dilations, strict=False)]
    if len(kernel) != 2 or not all(0 <= pad < max(reach) for pad in pads):
        raise LoweringError(f"{described(node)} pads by {pads}, which its kernel cannot reach")
    written = node.attributes.get_string("auto_pad", "NOTSET")
    if written not in ("NOTSET", "VALID"):
        raise LoweringError(f"{described(node)} leaves its padding to auto_pad {written!r}; write it out as pads")
    rounds_up = bool(node.attributes.get_int("ceil_mode", 0))
    height, width = (Side(source.shape[1 + i], reach[i], strides[i], pads[i], pads[2 + i], rounds_up) for i in (0, 1))
    return Windows((height, width), (dilations[0], dilations[1]))


def pad(context: Context, node: ir.Node, source: Lowered, padding: Sequence[tuple[int, int]]) -> Lowered:
    """`source` with (before, after) of height and width padded by real zeros, which for the image is its mean."""
    if source.centre is not None:
        return _pad_with_mean(context, node, source, padding)
    shape, amounts = _padded(context, node, source, padding)
    name = f"{node.name}.padded"
    if source.integer is not None and source.quant is not None:
        result = context.add_integer(name, shape, source.quant)
        context.add_operator("PAD", (source.integer, amounts), result)
        return Lowered(shape, integer=result, quant=source.quant)
    result = context.add_real(name, shape)
    context.add_operator("PAD", (context.real(source), amounts), result)
    return Lowered(shape, real=result)


def pad_with_lowest(context: Context, node: ir.Node, source: Lowered, padding: Sequence[tuple[int, int]]) -> Lowered:
    """`source` padded by the lowest number there is, which never is the largest of a window."""
    shape, amounts = _padded(context, node, source, padding)
    name = f"{node.name}.padded"
    if source.integer is not None and source.quant is not None:
        lowest = np.array([-SHIFT], np.int8)
        constant = Tensor(f"{node.name}.lowest", lowest.dtype, (1,), quantisation_of(source.quant), lowest)
        result = context.add_integer(name, shape, source.quant)
        context.add_operator("PADV2", (source.integer, amounts, context.add_tensor(constant)), result)
        return Lowered(shape, integer=result, quant=source.quant)
    fill = context.add_constant(f"{node.name}.lowest", np.array([LOWEST], np.float32))
    result = context.add_real(name, shape)
    context.add_operator("PADV2", (context.real(source), amounts, fill), result)
    return Lowered(shape, real=result)


def _padded(
    context: Context, node: ir.Node, source: Lowered, padding: Sequence[tuple[int, int]]
) -> tuple[tuple[int, ...], int]:
    """The shape after padding, and the constant with the amounts."""
    height, width = (size + sum(sides) for size, sides in zip(source.shape[1:3], padding, strict=True))
    amounts = np.array([(0, 0), *padding, (0, 0)], np.int32)
    return (1, height, width, source.shape[3]), context.add_constant(f"{node.name}.padding", amounts)


def _pad_with_mean(context: Context, node: ir.Node, source: Lowered, padding: Sequence[tuple[int, int]]) -> Lowered:
    """PAD fills with one number; rows and columns of the mean colour are concatenated instead."""
    assert source.centre is not None and source.integer is not None and source.quant is not None
    colour = (source.centre - SHIFT).astype(np.int8)
    shape, current = list(source.shape), source.integer
    for axis, amounts in ((1, padding[0]), (2, padding[1])):
        parts = [current]
        for amount, position in zip(amounts, (0, 1), strict=True):
            if amount:
                edge = np.broadcast_to(colour, [*shape[:axis], amount, *shape[axis + 1 :]])
                name = f"{node.name}.border.{axis}.{position}"
                quantisation = quantisation_of(source.quant)
                constant = Tensor(name, edge.dtype, edge.shape, quantisation, np.ascontiguousarray(edge))
                parts.insert(0 if position == 0 else len(parts), context.add_tensor(constant))
        if len(parts) > 1:
            shape[axis] += sum(amounts)
            current = context.add_integer(f"{node.name}.padded.{axis}", tuple(shape), source.quant)
            options = {"axis": axis, "fusedActivationFunction": NO_ACTIVATION}
            context.add_operator("CONCATENATION", parts, current, options)
    return replace(source, shape=tuple(shape), integer=current)
