"""Faces made unreadable in a picture."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..ops.faces import Faces

BLOCKS = 3
"""A covered face is so many flat blocks across and down: none is smaller than the distance from eye to eye."""
MARGIN = 0.25
"""Covered beside each side of the box, as a share of its width or height: hair line, chin and ears."""


def anonymise(frame: NDArray[np.uint8], faces: Faces) -> NDArray[np.uint8]:
    """A copy of `frame` (uint8, (h, w, 3) or (h, w)) in which a few flat blocks of the mean colour cover each face.

    Nothing of what was below can be computed from the blocks. They cover the box with a margin, and all landmarks and
    vertices.
    """
    covered = frame.copy()
    height, width = frame.shape[:2]
    for face in faces:
        points = np.array(face.landmarks, np.float64).reshape(-1, 2)
        if face.vertices is not None:
            points = np.concatenate([points, face.vertices[:, :2]])
        x1, y1, x2, y2 = face.box
        across, down = (x2 - x1) * MARGIN, (y2 - y1) * MARGIN
        corners = np.array([[x1 - across, y1 - down], [x2 + across, y2 + down]])
        low = np.floor(np.concatenate([corners, points]).min(axis=0)).clip(0, [width, height]).astype(int)
        high = np.ceil(np.concatenate([corners, points]).max(axis=0)).clip(0, [width, height]).astype(int)
        columns = np.unique(np.linspace(low[0], high[0], BLOCKS + 1).round().astype(int))
        rows = np.unique(np.linspace(low[1], high[1], BLOCKS + 1).round().astype(int))
        for top, bottom in pairwise(rows):
            for left, right in pairwise(columns):
                block = covered[top:bottom, left:right]
                block[:] = block.mean(axis=(0, 1)).round()
    return covered
