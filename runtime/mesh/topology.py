"""The 468-vertex face: where its vertices lie in a face of no expression, its triangles, and its texture coordinates.

The data are those of MediaPipe's canonical face (Apache-2.0), triangles sorted and texture coordinates rounded to
0.0001; so a mesh of this project fits what others made for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..spec import VERTICES

DATA = Path(__file__).parent / "face468.json"
"""One side of the face, since the other is its mirror image: the first vertices, and the triangles with negative x.

Column by column, in units of 0.0001, triangles as differences from the one before: fewest bytes.
"""
UNIT = 1e4


@dataclass(frozen=True, eq=False)
class Topology:
    """What all meshes share.

    `canonical` (468, 3) float64, in centimetres: x to the right as seen in the picture, y up, z to the viewer.
    `triangles` (898, 3) vertex indices, anticlockwise seen from outside. `uv` (468, 2) float64 in 0…1 from the
    texture's top left. `mirror` (468,) the vertex on the other side of the face; its own on the line between them.
    """

    canonical: NDArray[np.float64]
    triangles: NDArray[np.intp]
    uv: NDArray[np.float64]
    mirror: NDArray[np.intp]

    @property
    def edges(self) -> NDArray[np.intp]:
        """Every edge once, as rows of two vertices, the smaller index first."""
        sides = np.concatenate([self.triangles[:, [0, 1]], self.triangles[:, [1, 2]], self.triangles[:, [2, 0]]])
        return np.unique(np.sort(sides, axis=1), axis=0)


@cache
def topology() -> Topology:
    """Read once, when a mesh is first asked for."""
    data = json.loads(DATA.read_text(encoding="utf-8"))
    side = np.array(data["canonical"]).T / UNIT
    beside = np.flatnonzero(side[:, 0])
    mirror = np.arange(VERTICES)
    mirror[beside], mirror[len(side) :] = mirror[len(side) :], beside
    triangles = np.cumsum(data["triangles"], axis=1, dtype=np.intp).T
    others = mirror[triangles[:, ::-1]]  # as a mirror turns them
    others = np.stack([np.roll(triangle, -triangle.argmin()) for triangle in others])
    return Topology(
        canonical=np.concatenate([side, side[beside] * (-1.0, 1.0, 1.0)]),
        triangles=np.array(sorted(np.concatenate([triangles, others]).tolist())),
        uv=np.array(data["uv"]).T / UNIT,
        mirror=mirror,
    )
