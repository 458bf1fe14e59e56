"""Letterbox: a frame of any size, scaled into the network's input in fixed point.

The frame is scaled by min(W/w, H/h), put at the top left, and the rest is filled with the mean colour. Interpolation
is bilinear with pixel centres at half coordinates, two taps an axis and weights in 1/256: rows first, then columns,
each pass rounded to 8 bits. Every step is an unsigned 16-bit integer operation, so that C gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import ImageError
from .spec import Spec

ROWS_A_BLOCK = 16


@dataclass(frozen=True)
class Taps:
    """One axis of the interpolation: target i is (first·(256 − weight) + second·weight) / 256 of two sources."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    weight: NDArray[np.uint16]


@dataclass(frozen=True)
class Letterbox:
    """Where a frame of `frame_width` × `frame_height` lies in the input: its top left `width` × `height` pixels."""

    frame_width: int
    frame_height: int
    width: int
    height: int
    columns: Taps
    rows: Taps

    @property
    def scale_x(self) -> float:
        """Frame pixels an input pixel, horizontally."""
        return self.frame_width / self.width

    @property
    def scale_y(self) -> float:
        """Frame pixels an input pixel, vertically."""
        return self.frame_height / self.height


def check_frame(frame: object) -> NDArray[np.uint8]:
    """The frame itself if it is uint8 with shape (height, width, 3) or (height, width); otherwise `ImageError`."""
    if not isinstance(frame, np.ndarray):
        raise ImageError(f"a frame must be a NumPy array, not {type(frame).__name__}")
    if frame.dtype != np.uint8:
        raise ImageError(f"a frame must be uint8 with values 0…255, not {frame.dtype}; convert it before detecting")
    if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3):
        raise ImageError(f"a frame must have shape (height, width, 3) or (height, width), not {frame.shape}")
    if min(frame.shape[:2]) < 1:
        raise ImageError(f"a frame must have at least one pixel, not shape {frame.shape}")
    return frame


def letterbox_for(spec: Spec, frame_width: int, frame_height: int) -> Letterbox:
    """The placement and the interpolation tables for frames of one size; compute once, use for every frame."""
    if spec.width * frame_height <= spec.height * frame_width:
        width, height = spec.width, _scaled(frame_height, spec.width, frame_width)
    else:
        width, height = _scaled(frame_width, spec.height, frame_height), spec.height
    return Letterbox(frame_width, frame_height, width, height, _taps(frame_width, width), _taps(frame_height, height))


def letterbox(
    spec: Spec, placement: Letterbox, frame: NDArray[np.uint8], out: NDArray[np.uint8], rgb: bool = False
) -> None:
    """Write `frame` into `out`.

    `frame` is uint8 of shape (h, w, 3), BGR unless `rgb`, or (h, w) grey; `out` is uint8 of shape (1, H, W, 3), every
    byte of it is written. `placement` must have been made for this frame's size.
    """
    target = out[0]
    target[placement.height :] = spec.mean
    target[: placement.height, placement.width :] = spec.mean
    target = target[: placement.height, : placement.width]
    pixels = frame[:, :, np.newaxis] if frame.ndim == 2 else frame[:, :, ::-1] if rgb else frame
    if placement.frame_width == placement.width and placement.frame_height == placement.height:
        target[:] = pixels
        return
    rows, columns = placement.rows, placement.columns
    for top in range(0, placement.height, ROWS_A_BLOCK):
        block = slice(top, top + ROWS_A_BLOCK)
        blended = _blend(pixels[rows.first[block]], pixels[rows.second[block]], rows.weight[block, None, None])
        target[block] = _blend(blended[:, columns.first], blended[:, columns.second], columns.weight[:, None])


def _blend(first: NDArray[np.uint8], second: NDArray[np.uint8], weight: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """(first·(256 − weight) + second·weight + 128) / 256 in uint16: at most 255·256 + 128, so nothing overflows."""
    total: NDArray[np.uint16] = first * (np.uint16(256) - weight) + second * weight + np.uint16(128)
    return (total >> np.uint16(8)).astype(np.uint8)


def _scaled(side: int, numerator: int, denominator: int) -> int:
    return max(1, (side * numerator + denominator // 2) // denominator)


def _taps(source: int, target: int) -> Taps:
    """Source position of target pixel i: (i + 1/2)·source/target − 1/2 = ((2i + 1)·source − target) / (2·target)."""
    numerator = np.maximum((2 * np.arange(target, dtype=np.int64) + 1) * source - target, 0)
    denominator = 2 * target
    first = numerator // denominator
    weight = ((numerator % denominator) * 256 + target) // denominator
    return Taps(
        first=np.minimum(first, source - 1).astype(np.intp),
        second=np.minimum(first + 1, source - 1).astype(np.intp),
        weight=weight.astype(np.uint16),
    )
