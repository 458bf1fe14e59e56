"""At which scale a picture is shown to a network whose input size is fixed.

- `input`: the whole picture, letterboxed, as `detect` does; `vga` is the same and asks for a 640×480 input.
- `original`: one input pixel per picture pixel. A picture larger than the input is cut into overlapping tiles; faces
  that an inner edge cuts are left to the next tile, and to the whole picture, which is shown once more, letterboxed.
- `multi-scale`: the whole picture, the original scale and twice that, each also mirrored; boxes are voted (Gidaris and
  Komodakis, arXiv 1505.01749, section 5): a kept box becomes the mean of those it suppressed, weighted by score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.backends import Network
from retinaface_edge.runtime.ops.iou import iou
from retinaface_edge.runtime.ops.letterbox import letterbox, letterbox_for
from retinaface_edge.runtime.ops.postprocess import Faces, non_maximum_suppression, postprocess
from retinaface_edge.runtime.spec import Spec

from ..errors import MeasurementError

INPUT, VGA, ORIGINAL, MULTI_SCALE = "input", "vga", "original", "multi-scale"
SCALES = (VGA, ORIGINAL, MULTI_SCALE, INPUT)
VGA_SIZE = (640, 480)
TILE_STEP = 0.75
"""Tiles advance by this share of their size, so that any face up to a quarter of a tile is whole in one of them."""
EDGE = 0.01
"""A box that comes this near to an inner edge, as a share of the tile's size, counts as cut by it."""
IOU_THRESHOLD = 0.4
MIRRORED_POINTS = (1, 0, 2, 4, 3)
"""Left and right eyes and mouth corners change places in a mirrored picture."""


@dataclass(frozen=True)
class Tile:
    """A part of the picture, in its pixels, which may reach beyond the right and bottom; mirrored or not."""

    x: int
    y: int
    width: int
    height: int
    mirrored: bool = False


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
    whole = Tile(0, 0, width, height)
    if scale in (INPUT, VGA):
        return [whole]
    if scale == ORIGINAL:
        tiles = _tiles(width, height, spec.width, spec.height)
        return tiles if len(tiles) == 1 else [whole, *tiles]
    shown = [whole]
    for zoom in (1, 2):
        shown += _tiles(width, height, spec.width // zoom, spec.height // zoom)
    return [Tile(v.x, v.y, v.width, v.height, mirrored) for v in shown for mirrored in (False, True)]


def detect_at_scale(
    spec: Spec, network: Network, frame: NDArray[np.uint8], scale: str, score_threshold: float
) -> Faces:
    """The faces of a frame, uint8 (h, w, 3) BGR, found in its tiles and merged; in pixels of the frame."""
    height, width = frame.shape[:2]
    image = np.empty(spec.input_shape, np.uint8)
    found = []
    for tile in tiles_at(spec, width, height, scale):
        part = _cut(spec, frame, tile)
        placement = letterbox_for(spec, part.shape[1], part.shape[0])
        letterbox(spec, placement, part, image)
        faces = postprocess(spec, network.run(image), network.grids, placement, score_threshold, IOU_THRESHOLD)
        found.append(_in_frame(_uncut(faces, tile, width, height), tile))
    return merge(found, vote=scale == MULTI_SCALE)


def merge(found: list[Faces], vote: bool) -> Faces:
    """Faces of several tiles as those of one: non-maximum suppression over all, with box voting if asked."""
    scores = np.concatenate([faces.scores for faces in found])
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    boxes = np.concatenate([faces.boxes for faces in found])[order]
    landmarks = np.concatenate([faces.landmarks for faces in found])[order]
    kept = non_maximum_suppression(boxes, IOU_THRESHOLD)
    chosen = boxes[kept]
    if vote and len(kept):
        weights = (iou(chosen, boxes) >= IOU_THRESHOLD) * scores
        chosen = weights @ boxes / weights.sum(axis=1, keepdims=True)
    return Faces(scores[kept], chosen, landmarks[kept])


def _tiles(width: int, height: int, tile_width: int, tile_height: int) -> list[Tile]:
    return [
        Tile(x, y, tile_width, tile_height) for y in _starts(height, tile_height) for x in _starts(width, tile_width)
    ]


def _starts(side: int, tile: int) -> list[int]:
    """Where tiles begin along one side: evenly spread, the last ending with the picture."""
    if side <= tile:
        return [0]
    count = -(-(side - tile) // int(tile * TILE_STEP)) + 1
    return [round(index * (side - tile) / (count - 1)) for index in range(count)]


def _cut(spec: Spec, frame: NDArray[np.uint8], tile: Tile) -> NDArray[np.uint8]:
    """The pixels of a tile; what lies beyond the picture has the mean colour, as in the letterbox."""
    part = frame[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
    if part.shape[:2] != (tile.height, tile.width):
        padded = np.empty((tile.height, tile.width, 3), np.uint8)
        padded[:] = spec.padding_colour
        padded[: part.shape[0], : part.shape[1]] = part
        part = padded
    return np.ascontiguousarray(part[:, ::-1]) if tile.mirrored else part


def _uncut(faces: Faces, tile: Tile, width: int, height: int) -> Faces:
    """Without the faces that touch an edge of the tile inside the picture. `faces` are in the tile's pixels."""
    x1, y1, x2, y2 = faces.boxes.T
    left, right = (
        (tile.x + tile.width < width, tile.x > 0) if tile.mirrored else (tile.x > 0, tile.x + tile.width < width)
    )
    margin_x, margin_y = EDGE * tile.width, EDGE * tile.height
    cut = np.zeros(len(faces), bool)
    if left:
        cut |= x1 < margin_x
    if right:
        cut |= x2 > tile.width - margin_x
    if tile.y > 0:
        cut |= y1 < margin_y
    if tile.y + tile.height < height:
        cut |= y2 > tile.height - margin_y
    return Faces(faces.scores[~cut], faces.boxes[~cut], faces.landmarks[~cut])


def _in_frame(faces: Faces, tile: Tile) -> Faces:
    """From the tile's pixels to the frame's."""
    boxes, points = faces.boxes.copy(), faces.landmarks.copy()
    if tile.mirrored:
        boxes[:, [0, 2]] = tile.width - faces.boxes[:, [2, 0]]
        points[..., 0] = tile.width - points[..., 0]
        if points.shape[1] == len(MIRRORED_POINTS):
            points = points[:, MIRRORED_POINTS]
    origin = np.array([tile.x, tile.y])
    return Faces(faces.scores, boxes + np.tile(origin, 2), points + origin)
