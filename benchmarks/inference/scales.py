"""At which scale a picture is shown to a network whose input size is fixed.

- `input`: the whole picture, letterboxed, as `detect` does; `vga` is the same and asks for a 640×480 input.
- `original`: one input pixel per picture pixel. A picture larger than the input is cut into overlapping tiles; faces
  that an inner edge cuts are left to the next tile, and to the whole picture, which is shown once more, letterboxed.
- `multi-scale`: the whole picture, the original scale and twice that, each also mirrored; boxes are voted (Gidaris and
  Komodakis, arXiv 1505.01749, section 5): a kept box becomes the mean of those it suppressed, weighted by score.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.backends import Network
from retinaface_edge.runtime.ops.letterbox import letterbox, letterbox_for
from retinaface_edge.runtime.ops.postprocess import Faces, postprocess
from retinaface_edge.runtime.ops.tiles import IOU_THRESHOLD, Tile, cut, in_frame, merge, tiles_of, uncut_faces
from retinaface_edge.runtime.spec import Spec

from ..errors import MeasurementError

__all__ = ["INPUT", "MULTI_SCALE", "ORIGINAL", "SCALES", "VGA", "checked_scale", "detect_at_scale", "merge", "tiles_at"]

INPUT, VGA, ORIGINAL, MULTI_SCALE = "input", "vga", "original", "multi-scale"
SCALES = (VGA, ORIGINAL, MULTI_SCALE, INPUT)
VGA_SIZE = (640, 480)


def checked_scale(spec: Spec, scale: str) -> str:
    """The scale as it is measured. Raises `MeasurementError` when it is unknown, or `vga` and the input is not VGA."""
    if scale not in SCALES:
        raise MeasurementError(f"there is no scale {scale!r}; choose one of: {', '.join(SCALES)}")
    if scale == VGA and (spec.width, spec.height) != VGA_SIZE:
        raise MeasurementError(
            f"the scale vga needs a bundle built at 640x480, this one takes {spec.width}x{spec.height}; "
            "use --scale input"
        )
    return INPUT if scale == VGA else scale


def tiles_at(spec: Spec, width: int, height: int, scale: str) -> list[Tile]:
    """What to show of a picture of `width` × `height` pixels at a scale of `SCALES`."""
    full_frame = Tile(0, 0, width, height)
    if scale in (INPUT, VGA):
        return [full_frame]
    if scale == ORIGINAL:
        tiles = tiles_of(width, height, spec.width, spec.height)
        return tiles if len(tiles) == 1 else [full_frame, *tiles]
    shown = [full_frame]
    for zoom in (1, 2):
        shown += tiles_of(width, height, spec.width // zoom, spec.height // zoom)
    return [Tile(v.x, v.y, v.width, v.height, mirrored) for v in shown for mirrored in (False, True)]


def detect_at_scale(
    spec: Spec, network: Network, frame: NDArray[np.uint8], scale: str, score_threshold: float
) -> Faces:
    """The faces of a frame, uint8 (h, w, 3) BGR, found in its tiles and merged; in pixels of the frame."""
    height, width = frame.shape[:2]
    image = np.empty(spec.input_shape, np.uint8)
    found = []
    for tile in tiles_at(spec, width, height, scale):
        part = cut(frame, tile, spec.padding_colour)
        placement = letterbox_for(spec, part.shape[1], part.shape[0])
        letterbox(spec, placement, part, image)
        faces = postprocess(spec, network.run(image), network.quant_params, placement, score_threshold, IOU_THRESHOLD)
        found.append(in_frame(uncut_faces(faces, tile, width, height), tile))
    return merge(found, vote=scale == MULTI_SCALE)
