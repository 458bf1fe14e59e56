"""The image's columns folded into channels: what makes the first convolution cheaper for XNNPACK.

XNNPACK's INT8 kernels take the channels under each weight of a window in steps of four or eight, so the three colours
of a pixel leave most of a step empty. The bytes of `fold` neighbouring pixels are one pixel of 3·fold channels already,
without any being moved. A convolution of stride s over them with fewer, longer windows computes fold / s columns of the
result at once, as further channels, which the same argument unfolds. The sums are of the same products, so the
integers are the same bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .tflite_context import Constant, Context, Lowered
from .tflite_windows import Side, Windows


@dataclass(frozen=True)
class Folded:
    """A convolution of a folded image: constants, windows over the folded image, and what it does to columns.

    `fold` columns of the image are one, and `columns` of the result are made at once, as channels.
    """

    weight: Constant
    bias: Constant
    windows: Windows
    fold: int
    columns: int

    @property
    def padding(self) -> list[tuple[int, int]]:
        """(before, after) of the image's height and width, in its own pixels."""
        height, (before, after) = self.windows.padding
        return [height, (before * self.fold, after * self.fold)]


def fold_columns(source: Lowered, weight: Constant, bias: Constant, around: Windows, fold: int) -> Folded | None:
    """The convolution with `fold` columns of its image as one, or None where they do not divide.

    `weight` is (outputs, channels, height, width), `around` its windows over `source`.
    """
    side = around.sides[1]
    divides = fold % side.stride == 0 and side.size % fold == 0 and side.outputs * side.stride == side.size
    if fold == 1 or source.integer is None or source.centre is None or not divides or around.dilations != (1, 1):
        return None
    columns = fold // side.stride
    starts = [side.stride * column - side.before for column in range(columns)]
    first, last = starts[0] // fold, (starts[-1] + side.kernel - 1) // fold
    outputs, channels, height, width = weight.array.shape
    array = np.zeros((columns, outputs, fold, channels, height, last - first + 1), weight.array.dtype)
    for column, start in enumerate(starts):
        for tap in range(width):
            pixel, within = divmod(start + tap, fold)
            array[column, :, within, :, :, pixel - first] = weight.array[:, :, :, tap]
    folded = Side(side.size // fold, last - first + 1, 1, -first, last)
    scale = None if weight.scale is None else np.tile(weight.scale, columns)
    return Folded(
        Constant(array.reshape(columns * outputs, fold * channels, height, -1), scale),
        replace(bias, array=np.tile(bias.array, columns)),
        Windows((around.sides[0], folded), (1, 1)),
        fold,
        columns,
    )


def folded_image(context: Context, source: Lowered, fold: int) -> Lowered:
    """The same bytes, padding included, with `fold` columns as one. XNNPACK moves nothing for it."""
    assert source.integer is not None and source.quant is not None and source.centre is not None
    _, height, width, channels = source.shape
    shape = (1, height, width // fold, fold * channels)
    result = context.add_integer(f"{context.tensors[source.integer].name}.folded", shape, source.quant)
    add_reshape(context, source.integer, result)
    return replace(source, shape=shape, integer=result, centre=np.tile(source.centre, fold))


def add_reshape(context: Context, source: int, result: int) -> None:
    """RESHAPE of one tensor into another that exists."""
    shape = context.tensors[result].shape
    constant = context.add_constant(f"{context.tensors[result].name}.shape", np.array(shape, np.int32))
    context.add_operator("RESHAPE", (source, constant), result, {"newShape": list(shape)})
