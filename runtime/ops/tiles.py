"""Overlapping tiles of a picture that is larger than the network's input, and their faces merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .faces import Faces
from .iou import iou
from .nms import non_maximum_suppression

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


def tiles_of(width: int, height: int, tile_width: int, tile_height: int) -> list[Tile]:
    """Tiles of one size that cover a picture of `width` × `height` pixels, row by row, evenly spread."""
    return [
        Tile(x, y, tile_width, tile_height) for y in _starts(height, tile_height) for x in _starts(width, tile_width)
    ]


def pyramid(width: int, height: int, tile_width: int, tile_height: int) -> list[Tile]:
    """Tiles of twice the size, level by level, until one holds the whole picture; the smallest first.

    A face that is too large for the tiles of one level is whole in a tile of the next, where it is half as large.
    """
    tiles: list[Tile] = []
    while tile_width < width or tile_height < height:
        tiles += tiles_of(width, height, tile_width, tile_height)
        tile_width, tile_height = 2 * tile_width, 2 * tile_height
    return [*tiles, Tile(0, 0, width, height)]


def cut(frame: NDArray[np.uint8], tile: Tile, padding: Sequence[int]) -> NDArray[np.uint8]:
    """The pixels of a tile of `frame`, (h, w, 3) or (h, w); what lies beyond the picture has the colour `padding`."""
    part = frame[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
    if part.shape[:2] != (tile.height, tile.width):
        padded = np.empty((tile.height, tile.width, *frame.shape[2:]), np.uint8)
        padded[:] = padding if frame.ndim == 3 else padding[0]
        padded[: part.shape[0], : part.shape[1]] = part
        part = padded
    return np.ascontiguousarray(part[:, ::-1]) if tile.mirrored else part


def uncut_faces(faces: Faces, tile: Tile, width: int, height: int) -> Faces:
    """Without the faces that touch an edge of the tile inside the picture. `faces` are in the tile's pixels."""
    x1, y1, x2, y2 = faces.boxes.T
    left, right = (
        (tile.x + tile.width < width, tile.x > 0) if tile.mirrored else (tile.x > 0, tile.x + tile.width < width)
    )
    margin_x, margin_y = EDGE * tile.width, EDGE * tile.height
    touching = np.zeros(len(faces), bool)
    if left:
        touching |= x1 < margin_x
    if right:
        touching |= x2 > tile.width - margin_x
    if tile.y > 0:
        touching |= y1 < margin_y
    if tile.y + tile.height < height:
        touching |= y2 > tile.height - margin_y
    return _chosen(faces, np.flatnonzero(~touching))


def in_frame(faces: Faces, tile: Tile) -> Faces:
    """From the tile's pixels to the frame's."""
    boxes, points, vertices = faces.boxes.copy(), faces.landmarks.copy(), faces.vertices
    if tile.mirrored:
        boxes[:, [0, 2]] = tile.width - faces.boxes[:, [2, 0]]
        points[..., 0] = tile.width - points[..., 0]
        if points.shape[1] == len(MIRRORED_POINTS):
            points = points[:, MIRRORED_POINTS]
    origin = np.array([tile.x, tile.y])
    if vertices is not None:
        vertices = vertices + np.array([tile.x, tile.y, 0.0])
    return Faces(faces.scores, boxes + np.tile(origin, 2), points + origin, vertices)


def merge(found: Sequence[Faces], vote: bool = False, iou_threshold: float = IOU_THRESHOLD) -> Faces:
    """Faces of several tiles as those of one: non-maximum suppression over all, with box voting if asked.

    Voting (Gidaris and Komodakis, arXiv 1505.01749, section 5): a kept box becomes the mean of those it suppressed,
    weighted by score.
    """
    vertices = [faces.vertices for faces in found if faces.vertices is not None]
    every = Faces(
        np.concatenate([faces.scores for faces in found]),
        np.concatenate([faces.boxes for faces in found]),
        np.concatenate([faces.landmarks for faces in found]),
        np.concatenate(vertices) if len(vertices) == len(found) else None,
    )
    every = _chosen(every, np.argsort(-every.scores, kind="stable"))
    kept = non_maximum_suppression(every.boxes, iou_threshold)
    faces = _chosen(every, kept)
    if not vote or not len(kept):
        return faces
    weights = (iou(faces.boxes, every.boxes) >= iou_threshold) * every.scores
    return Faces(faces.scores, weights @ every.boxes / weights.sum(axis=1, keepdims=True), faces.landmarks)


def _starts(side: int, tile: int) -> list[int]:
    """Where tiles begin along one side: evenly spread, the last ending with the picture."""
    if side <= tile:
        return [0]
    count = -(-(side - tile) // int(tile * TILE_STEP)) + 1
    return [round(index * (side - tile) / (count - 1)) for index in range(count)]


def _chosen(faces: Faces, index: NDArray[np.intp]) -> Faces:
    vertices = None if faces.vertices is None else faces.vertices[index]
    return Faces(faces.scores[index], faces.boxes[index], faces.landmarks[index], vertices)
