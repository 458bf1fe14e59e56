"""Non-maximum suppression: of boxes that overlap, the best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 64
CROWD = 512
"""From so many boxes on, each that is kept is compared with those near it, instead of 64 with all at once."""


def non_maximum_suppression(
    boxes: NDArray[np.float64], iou_threshold: float, max_faces: int | None = None
) -> NDArray[np.intp]:
    """Indices of the boxes to keep, given finite `boxes` (n, 4) best first: each suppresses the later ones it overlaps.

    At most `max_faces`, the best of them.
    """
    sides = np.ascontiguousarray(boxes.T)  # (4, n): long loops over the boxes
    area = (sides[2] - sides[0]) * (sides[3] - sides[1])
    suppress = _in_blocks if len(boxes) < CROWD else _in_a_crowd
    return np.array(suppress(sides, area, iou_threshold, max_faces or len(boxes)), np.intp)


def _in_blocks(sides: NDArray[np.float64], area: NDArray[np.float64], iou_threshold: float, most: int) -> list[int]:
    """Few calls for a few faces: the best 64 that remain are compared with all that remain at once."""
    index = np.arange(len(area))
    kept: list[int] = []
    while len(index):
        head = sides[:, :BLOCK, np.newaxis]
        shared = np.minimum(head[2:], sides[2:, np.newaxis])
        shared -= np.maximum(head[:2], sides[:2, np.newaxis])
        np.maximum(shared, 0.0, out=shared)
        overlap = shared[0] * shared[1]
        survives = overlap <= iou_threshold * (area[:BLOCK, np.newaxis] + area - overlap)
        # Each row as one integer, a bit for each box: the loop is then free of NumPy.
        packed = np.packbits(survives, axis=1, bitorder="little")
        alive = (1 << len(index)) - 1
        for row, survivors in enumerate(packed):
            if alive >> row & 1:
                kept.append(int(index[row]))
                alive &= int.from_bytes(survivors.tobytes(), "little")
        if len(index) <= BLOCK or len(kept) >= most:
            break
        bits = np.frombuffer(alive.to_bytes(packed.shape[1], "little"), np.uint8)
        left = np.flatnonzero(np.unpackbits(bits, count=len(index), bitorder="little")[BLOCK:]) + BLOCK
        index, sides, area = index[left], sides[:, left], area[left]
    return kept[:most]


def _in_a_crowd(sides: NDArray[np.float64], area: NDArray[np.float64], iou_threshold: float, most: int) -> list[int]:
    """The work grows with the faces kept: each is compared only with boxes that it may overlap horizontally."""
    order = sides[0].argsort()
    by_left = sides[:, order]
    area = area[order]
    place = np.empty(len(order), np.intp)
    place[order] = np.arange(len(order))
    # Boxes before `first` end left of the box, those from `last` on begin right of it.
    first = np.maximum.accumulate(by_left[2]).searchsorted(sides[0], side="right").tolist()
    last = by_left[0].searchsorted(sides[2]).tolist()
    alive = np.ones(len(order), np.bool_)
    kept: list[int] = []
    for index, own in enumerate(place.tolist()):
        if not alive[own]:
            continue
        kept.append(index)
        if len(kept) == most:
            break
        near = slice(first[index], last[index])
        box = by_left[:, own, np.newaxis]
        shared = np.minimum(box[2:], by_left[2:, near])
        shared -= np.maximum(box[:2], by_left[:2, near])
        np.maximum(shared, 0.0, out=shared)
        overlap = shared[0] * shared[1]
        union = area[near] + area[own]
        union -= overlap
        union *= iou_threshold
        alive[near] &= overlap <= union
    return kept
