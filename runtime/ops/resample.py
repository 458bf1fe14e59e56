"""Two-tap interpolation of a block of rows, in place in memory that is allocated once for each frame size.

Target i of an axis is (first·(256 − weight) + second·weight + 128) / 256 of two neighbouring source pixels. Three ways
to compute it, all with the same result:
- weight 0 everywhere: the first pixel alone;
- weight 128 everywhere: (first + second + 1) / 2, as (first | second) − ((first ^ second) >> 1) in 8 bits;
- otherwise: bytes in pairs, as the low and high half of 16-bit numbers, so that no array has to be widened.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 196608
MAX_BLOCK_ROWS = 64
PAIR = np.dtype("<u2")
CHANNELS = 3

Bytes = NDArray[np.uint8]
Pairs = NDArray[np.uint16]


class Taps(NamedTuple):
    """One axis of the interpolation: `first` and `second` source index and `weight` in 1/256 of each target.

    `step` is n where target i reads source `first[0]` + n·i with one weight of 0 or 128 for all, as every whole-number
    ratio n does; otherwise 0. `low` and `high` are the weights of a row's even and odd bytes, by number of channels.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    weight: NDArray[np.uint16]
    step: int
    low: dict[int, Pairs]
    high: dict[int, Pairs]


class Scratch(NamedTuple):
    """Working memory: six blocks of `rows` rows, and one row of the mean colour, shape (W, 3)."""

    rows: int
    blocks: tuple[Bytes, ...]
    mean: Bytes

    @classmethod
    def for_width(cls, width: int, mean: Bytes) -> Scratch:
        """For rows of at most `width` pixels."""
        row = _even(width) * CHANNELS
        rows = max(1, min(MAX_BLOCK_ROWS, BLOCK_BYTES // row))
        return cls(rows, tuple(np.zeros(rows * row, np.uint8) for _ in range(6)), mean)

    def block(self, index: int, rows: int, width: int, channels: int) -> Bytes:
        """A part of one block as (rows, width, channels), contiguous."""
        return self.blocks[index][: rows * width * channels].reshape(rows, width, channels)


def taps(source: int, target: int) -> Taps:
    """Source position of target pixel i: (i + 1/2)·source/target − 1/2 = ((2i + 1)·source − target) / (2·target)."""
    numerator = np.maximum((2 * np.arange(target, dtype=np.int64) + 1) * source - target, 0)
    denominator = 2 * target
    first = numerator // denominator
    weight = (((numerator % denominator) * 256 + target) // denominator).astype(np.uint16)
    first, second = np.minimum(first, source - 1), np.minimum(first + 1, source - 1)
    # An odd target gets one more pixel, which nobody reads: rows are then whole pairs of bytes.
    padded = np.append(weight, weight[:1]) if target % 2 else weight
    by_byte = {channels: np.repeat(padded, channels) for channels in (1, CHANNELS)}
    return Taps(
        first=first.astype(np.intp),
        second=second.astype(np.intp),
        weight=weight,
        step=source // target if source % target == 0 else 0,
        low={channels: np.ascontiguousarray(weights[0::2]) for channels, weights in by_byte.items()},
        high={channels: np.ascontiguousarray(weights[1::2]) for channels, weights in by_byte.items()},
    )


def blend_rows(pixels: Bytes, rows: Taps, block: slice, scratch: Scratch) -> Bytes:
    """Target rows `block` of the vertical pass over `pixels` (h, w, channels): (rows, w or one more, channels).

    The result is a view of `pixels` or of the scratch memory.
    """
    width, channels = pixels.shape[1:]
    count = block.stop - block.start
    packed = pixels.strides[1:] == (channels, 1)
    if rows.step:
        start = int(rows.first[0]) + rows.step * block.start
        stop = start + rows.step * (count - 1) + 1
        first = pixels[start : stop : rows.step]
        second = pixels[start + 1 : stop + 1 : rows.step] if rows.weight[0] else None
    else:
        first, second = pixels[rows.first[block]], pixels[rows.second[block]]
    if second is None:
        return first if packed else _gather(first, scratch.block(0, count, width, channels))
    if rows.step:
        if not packed:
            first = _gather(first, scratch.block(0, count, width, channels))
            second = _gather(second, scratch.block(1, count, width, channels))
        return _average(first, second, scratch.block(0, count, width, channels), scratch)
    wide = _even(width)
    a, b = scratch.block(0, count, wide, channels), scratch.block(1, count, wide, channels)
    _gather(first, a[:, :width])
    _gather(second, b[:, :width])
    weight = rows.weight[block, np.newaxis]
    _blend(a, b, weight, weight, scratch)
    return a


def blend_columns(pixels: Bytes, columns: Taps, scratch: Scratch) -> Bytes:
    """The horizontal pass over `pixels` (rows, w, channels): a view (rows, target width, channels) of some memory."""
    count, width, channels = pixels.shape
    target = len(columns.weight)
    if columns.step:
        if columns.weight[0]:  # All neighbours, though every n-th is wanted: contiguous bytes are the faster way.
            mean = scratch.block(3, count, width, channels)
            if pixels.flags.c_contiguous:  # one long row: what each row's last pixel becomes is not picked
                flat = pixels.reshape(-1)
                _average(flat[:-channels], flat[channels:], mean.reshape(-1)[:-channels], scratch)
            else:
                _average(pixels[:, :-1], pixels[:, 1:], mean[:, :-1], scratch)
            pixels = mean
        start = int(columns.first[0])
        return pixels[:, start : start + columns.step * (target - 1) + 1 : columns.step]
    wide = _even(target)
    a, b = scratch.block(2, count, wide, channels), scratch.block(3, count, wide, channels)
    for index, out in ((columns.first, a), (columns.second, b)):
        padded = np.append(index, index[:1]) if target % 2 else index
        np.take(pixels, padded, axis=1, out=out, mode="clip")  # any other mode makes a copy of `out`
    _blend(a, b, columns.low[channels], columns.high[channels], scratch)
    return a[:, :target]


def store(pixels: Bytes, order: tuple[int, int, int], out: Bytes) -> None:
    """Copy `pixels` (h, w, 1 or 3) to `out` (h, w, 3), whose channel c is channel order[c] of `pixels`."""
    if order == (0, 1, 2) and pixels.strides[1:] == (CHANNELS, 1):
        out[:] = pixels
        return
    for channel, source in enumerate(order):  # three long loops instead of one of three steps for each pixel
        out[:, :, channel] = pixels[:, :, source]


def _gather(rows: Bytes, out: Bytes) -> Bytes:
    if rows.strides[1:] == out.strides[1:]:
        out[:] = rows
    else:
        for channel in range(out.shape[2]):
            out[:, :, channel] = rows[:, :, channel]
    return out


def _average(first: Bytes, second: Bytes, out: Bytes, scratch: Scratch) -> Bytes:
    half = scratch.blocks[4][: out.size].reshape(out.shape)
    np.bitwise_xor(first, second, out=half)
    np.floor_divide(half, 2, out=half)  # a shift by one, which NumPy does a byte at a time
    np.bitwise_or(first, second, out=out)
    return np.subtract(out, half, out=out)


def _blend(first: Bytes, second: Bytes, low_weight: Pairs, high_weight: Pairs, scratch: Scratch) -> None:
    """Blend two blocks (rows, w, channels) with an even number of bytes a row; the result replaces `first`.

    A byte times its weight is at most 255·256, and first and second weigh 256 together: 16 bits never overflow.
    """
    rows = len(first)
    a, b = first.reshape(rows, -1).view(PAIR), second.reshape(rows, -1).view(PAIR)
    low = scratch.blocks[4][: first.size].view(PAIR).reshape(a.shape)
    other = scratch.blocks[5][: first.size].view(PAIR).reshape(a.shape)
    np.bitwise_and(a, 0xFF, out=low)
    np.bitwise_and(b, 0xFF, out=other)
    low *= 256 - low_weight
    other *= low_weight
    low += other
    low += 128
    low >>= 8
    a >>= 8
    b >>= 8
    a *= 256 - high_weight
    b *= high_weight
    a += b
    a += 128
    a &= 0xFF00
    a |= low


def _even(count: int) -> int:
    return count + count % 2
