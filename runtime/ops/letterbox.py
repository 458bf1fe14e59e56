"""Letterbox: a frame of any size, scaled into the network's input in fixed point.

The frame is scaled by min(W/w, H/h), put at the top left, and the rest is filled with the mean colour. Interpolation
is bilinear with pixel centres at half coordinates, two taps per axis and weights in 1/256: rows first, then columns,
each pass rounded to 8 bits. Every step is an unsigned 16-bit integer operation, so that C gives the same bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from ..spec import Spec
from .resample import Scratch, Taps, blend_columns, blend_rows, store, taps


class Letterbox(NamedTuple):
    """Where a frame of `frame_width` × `frame_height` lies in the input: its top left `width` × `height` pixels.

    Holds the working memory of `letterbox`, a few blocks of rows: use one from one thread at a time.
    """

    frame_width: int
    frame_height: int
    width: int
    height: int
    columns: Taps
    rows: Taps
    scratch: Scratch

    @property
    def scale_x(self) -> float:
        """Frame pixels per input pixel, horizontally."""
        return self.frame_width / self.width

    @property
    def scale_y(self) -> float:
        """Frame pixels per input pixel, vertically."""
        return self.frame_height / self.height


def check_frame(frame: object) -> NDArray[np.uint8]:
    """The frame itself if it is uint8 with shape (height, width, 3) or (height, width); otherwise `ImageError`."""
    if not isinstance(frame, np.ndarray):
        raise ImageError(f"a frame must be a NumPy array, not {type(frame).__name__}")
    if frame.dtype != np.uint8:
        raise ImageError(f"a frame must be uint8 with values 0…255, not {frame.dtype}; convert it before detecting")
    if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3):
        raise ImageError(
            f"a frame must have shape (height, width, 3) or (height, width), not {frame.shape}; "
            "drop an alpha channel with frame[:, :, :3]"
        )
    if min(frame.shape[:2]) < 1:
        raise ImageError(f"a frame must have at least one pixel, not shape {frame.shape}")
    return frame


def letterbox_for(spec: Spec, frame_width: int, frame_height: int) -> Letterbox:
    """The placement and the interpolation tables for frames of one size; compute once, use for every frame."""
    if spec.width * frame_height <= spec.height * frame_width:
        width, height = spec.width, _scaled(frame_height, spec.width, frame_width)
    else:
        width, height = _scaled(frame_width, spec.height, frame_height), spec.height
    return Letterbox(
        frame_width=frame_width,
        frame_height=frame_height,
        width=width,
        height=height,
        columns=taps(frame_width, width),
        rows=taps(frame_height, height),
        scratch=Scratch.for_width(
            max(frame_width, width), np.tile(np.array(spec.padding_colour, np.uint8), (spec.width, 1))
        ),
    )


def letterbox(
    spec: Spec, placement: Letterbox, frame: NDArray[np.uint8], out: NDArray[np.uint8], rgb: bool = False
) -> None:
    """Write `frame` into `out`.

    `frame` is uint8 of shape (h, w, 3), BGR unless `rgb`, or (h, w) grey, with any strides; `out` is uint8 of shape
    (1, H, W, 3), every byte of it is written. `placement` must have been made for this frame's size.
    """
    scratch = placement.scratch
    pixels, order = (
        (frame[:, :, np.newaxis], (0, 0, 0)) if frame.ndim == 2 else (frame, (2, 1, 0) if rgb else (0, 1, 2))
    )
    input_image = out[0]
    # A prepared row of the mean colour: NumPy would run a loop per pixel over three numbers.
    input_image[placement.height :] = scratch.mean
    input_image[: placement.height, placement.width :] = scratch.mean[placement.width :]
    picture = input_image[: placement.height, : placement.width]
    if placement.rows.step == 1 and placement.columns.step == 1:
        store(pixels, order, picture)
        return
    for top in range(0, placement.height, scratch.rows):
        block = slice(top, min(top + scratch.rows, placement.height))
        blended = blend_rows(pixels, placement.rows, block, scratch)
        store(blend_columns(blended, placement.columns, scratch), order, picture[block])


def _scaled(side: int, numerator: int, denominator: int) -> int:
    return max(1, (side * numerator + denominator // 2) // denominator)
