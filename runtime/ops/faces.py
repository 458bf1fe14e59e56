"""The faces of one frame, as arrays and one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Face:
    """One face, in pixels of the frame; (0, 0) is the frame's top left corner. The box may reach outside the frame.

    Five `landmarks` are the left eye, right eye, nose, left and right mouth corner, left and right as seen in the
    picture; a detector may have another number of them, or none.
    """

    score: float
    box: tuple[float, float, float, float]
    landmarks: tuple[tuple[float, float], ...]
    vertices: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    """(468, 3) where meshes were asked for: in pixels of the frame, depth away from the viewer."""


@dataclass(frozen=True, eq=False)
class Faces:
    """The faces of one frame, best first: `scores` (n,), `boxes` (n, 4) as x1, y1, x2, y2, `landmarks` (n, k, 2).

    All float64; coordinates in pixels of the frame. `k` is the detector's number of landmarks, five for most.
    `vertices` (n, 468, 3) only where meshes were asked for. Iterating or indexing gives `Face`.
    """

    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    vertices: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: int) -> Face:
        x1, y1, x2, y2 = self.boxes[index].tolist()
        return Face(
            score=float(self.scores[index]),
            box=(x1, y1, x2, y2),
            landmarks=tuple((x, y) for x, y in self.landmarks[index].tolist()),
            vertices=None if self.vertices is None else self.vertices[index],
        )

    def __iter__(self) -> Iterator[Face]:
        return (self[index] for index in range(len(self)))
