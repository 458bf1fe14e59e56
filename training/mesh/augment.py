"""Augmentation: canvases of the detector's input size, tiled with photographs turned, scaled, blurred, lit and cut.

A canvas has one to six tiles. Every fourth tile shows a whole photograph, as large as it fits: alone on its canvas, it
is what the runtime's letterbox makes of it. The others show one under a similarity that puts one of its faces, at a
size drawn evenly in logarithm, somewhere in the tile; in every fifth tile the tile's edge may cut through the face.
Every face of the photograph comes along, with its vertices moved by the same similarity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.mesh.topology import topology
from retinaface_edge.runtime.spec import VERTICES

if TYPE_CHECKING:
    from PIL.Image import Image

LAYOUTS = ((1, 1), (1, 1), (1, 1), (2, 1), (2, 1), (2, 1), (2, 2), (3, 2))
LEAST_FACE = 24.0
"""Pixels; a face of a smaller box tells the features nothing of its shape."""
MOST_ENLARGED = 2.5
SMALL_TURN, LARGE_TURN = np.deg2rad(12.0), np.deg2rad(45.0)
LARGE_TURNS, HARD_CROPS, SMALL_FACES, MIRRORED, BLURRED, GREY = 0.25, 0.2, 0.4, 0.5, 0.25, 0.05
UNCROPPED = 0.25
MEAN_RGB = (123, 117, 104)
"""What the runtime's letterbox fills the rest with."""


@dataclass(frozen=True, eq=False)
class Photograph:
    """One picture (RGB) and what the teacher saw in it: `meshes` (n, 468, 3), `sizes` (n,) √(box area).

    `digest` is the SHA-256 of its file.
    """

    name: str
    picture: Image
    meshes: NDArray[np.float64]
    sizes: NDArray[np.float64]
    digest: str = ""


@dataclass(frozen=True, eq=False)
class Canvas:
    """A made picture: uint8 BGR (h, w, 3), and `meshes` (n, 468, 3) of its faces in its pixels."""

    pixels: NDArray[np.uint8]
    meshes: NDArray[np.float64]
    names: tuple[str, ...]


def canvas(photographs: Sequence[Photograph], width: int, height: int, random: np.random.Generator) -> Canvas:
    """Draw one canvas of `photographs`, each of which has a face."""
    from PIL import Image

    columns, rows = LAYOUTS[random.integers(len(LAYOUTS))]
    tile_width, tile_height = width // columns, height // rows
    mosaic = Image.new("RGB", (width, height))
    meshes, names = [], []
    for row in range(rows):
        for column in range(columns):
            photograph = photographs[int(random.integers(len(photographs)))]
            corner = np.array([column * tile_width, row * tile_height, 0.0])
            tile, seen = _tile(photograph, tile_width, tile_height, random)
            mosaic.paste(tile, (column * tile_width, row * tile_height))
            meshes += [mesh + corner for mesh in seen]
            names += [photograph.name] * len(seen)
    pixels = np.ascontiguousarray(np.asarray(mosaic)[:, :, ::-1])
    return Canvas(pixels, np.array(meshes).reshape(len(meshes), VERTICES, 3), tuple(names))


def _tile(
    photograph: Photograph, width: int, height: int, random: np.random.Generator
) -> tuple[Image, list[NDArray[np.float64]]]:
    from PIL import Image

    room = np.array([width, height], np.float64)
    mirror = -1.0 if random.random() < MIRRORED else 1.0
    # Tile pixel = matrix · photograph pixel + shift.
    if random.random() < UNCROPPED:
        matrix, shift = _uncropped(photograph, room, mirror)
    else:
        matrix, shift = _about_a_face(photograph, room, mirror, random)
    source, reduced = photograph.picture, 1
    scale = float(np.sqrt(abs(np.linalg.det(matrix))))
    if scale < 0.5:  # bilinear sampling alone would skip pixels
        reduced = int(1.0 / scale)
        source = source.reduce(reduced)
    inverse = np.linalg.inv(matrix)
    offset = -inverse @ shift
    data = (*inverse[0] / reduced, offset[0] / reduced, *inverse[1] / reduced, offset[1] / reduced)
    form = Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
    tile = source.transform((width, height), *form, fillcolor=MEAN_RGB)
    meshes = []
    for other in photograph.meshes:
        moved = np.empty_like(other)
        moved[:, :2] = other[:, :2] @ matrix.T + shift
        moved[:, 2] = other[:, 2] * scale
        if mirror < 0.0:
            moved = moved[topology().mirror]
        middle = moved[:, :2].mean(axis=0)
        if np.all(middle >= 0.0) and np.all(middle < room):
            meshes.append(moved)
    return _lit(tile, random), meshes


def _uncropped(
    photograph: Photograph, room: NDArray[np.float64], mirror: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix and shift of the whole photograph at the top left of a tile of the size `room`."""
    extent = np.array(photograph.picture.size, np.float64)
    scale = float((room / extent).min())
    shift = np.array([scale * extent[0] if mirror < 0.0 else 0.0, 0.0])
    return np.diag([mirror * scale, scale]), shift


def _about_a_face(
    photograph: Photograph, room: NDArray[np.float64], mirror: float, random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix and shift that put one of the photograph's faces in a tile of the size `room`."""
    which = random.integers(len(photograph.meshes))
    size, mesh = photograph.sizes[which], photograph.meshes[which]
    most = max(min(0.9 * float(room.min()), MOST_ENLARGED * size), LEAST_FACE + 1.0)
    least = LEAST_FACE if random.random() < SMALL_FACES else max(0.4 * most, LEAST_FACE)
    scale = np.exp(random.uniform(np.log(least), np.log(most))) / size
    turn = random.uniform(-LARGE_TURN, LARGE_TURN) if random.random() < LARGE_TURNS else random.normal(0.0, SMALL_TURN)
    cosine, sine = scale * np.cos(turn), scale * np.sin(turn)
    matrix = np.array([[mirror * cosine, -sine], [mirror * sine, cosine]])
    centre = 0.5 * (mesh[:, :2].min(axis=0) + mesh[:, :2].max(axis=0))
    margin = -0.2 if random.random() < HARD_CROPS else 0.5
    edge = np.minimum(margin * scale * size, 0.5 * room)
    return matrix, random.uniform(edge, room - edge) - matrix @ centre


def _lit(tile: Image, random: np.random.Generator) -> Image:
    """Brightness, contrast, tint, blur and greyness, each at random."""
    from PIL import Image, ImageFilter

    if random.random() < BLURRED:
        tile = tile.filter(ImageFilter.GaussianBlur(random.uniform(0.4, 2.0)))
    if random.random() < GREY:
        tile = tile.convert("L").convert("RGB")
    brightness = np.exp(random.normal(0.0, 0.25)) * np.exp(random.normal(0.0, 0.05, 3))
    contrast = np.exp(random.normal(0.0, 0.15))
    table = (np.arange(256.0) - 110.0) * contrast + 110.0
    lit = np.clip(np.rint(table * brightness[:, np.newaxis]), 0, 255).astype(np.uint8)
    return tile.point(lit.ravel().tolist()) if isinstance(tile, Image.Image) else tile
