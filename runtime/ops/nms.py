"""Non-maximum suppression: of boxes that overlap, the best."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK = 64
CROWD = 512
"""From so many boxes on, each that is kept is compared with those near it, instead of 64 with all at once."""


class Suppression(NamedTuple):
    """What suppression decided of boxes (n, 4) that came best first.

    `kept` (k,) are indices of boxes, best first. `owner` (n,) is, for each box, the position in `kept` of the box that
    suppressed it, its own if it is kept, and negative where the work ended before its turn.
    """

    kept: NDArray[np.intp]
    owner: NDArray[np.intp]


def suppress(boxes: NDArray[np.float64], iou_threshold: float, max_faces: int | None = None) -> Suppression:
    """Suppress the overlapping of finite `boxes` (n, 4), best first: each suppresses the later ones that it overlaps.

    At most `max_faces` are kept, the best of them.
    """
    sides = np.ascontiguousarray(boxes.T)  # (4, n): long loops over the boxes
    area = (sides[2] - sides[0]) * (sides[3] - sides[1])
    search = _in_blocks if len(boxes) < CROWD else _in_a_crowd
    kept, owner = search(sides, area, iou_threshold, max_faces or len(boxes))
    return Suppression(np.array(kept, np.intp), owner)


def non_maximum_suppression(
    boxes: NDArray[np.float64], iou_threshold: float, max_faces: int | None = None
) -> NDArray[np.intp]:
    """Indices (k,) of the boxes that `suppress` keeps."""
    return suppress(boxes, iou_threshold, max_faces).kept


def _in_blocks(
    sides: NDArray[np.float64], area: NDArray[np.float64], iou_threshold: float, most: int
) -> tuple[list[int], NDArray[np.intp]]:
    """Few calls for a few faces: the best 64 that remain are compared with all that remain at once."""
    index = np.arange(len(area))
    owner = [-1] * len(area)
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
        data, width, places = packed.tobytes(), packed.shape[1], index.tolist()
        alive = (1 << len(places)) - 1
        for row in range(len(packed)):
            if not alive >> row & 1:
                continue
            survivors = int.from_bytes(data[row * width : (row + 1) * width], "little")
            gone = alive & ~survivors | 1 << row  # at a threshold of 1 a box survives even itself
            alive &= survivors
            while gone:
                last = gone.bit_length() - 1
                owner[places[last]] = len(kept)
                gone ^= 1 << last
            kept.append(places[row])
        if len(index) <= BLOCK or len(kept) >= most:
            break
        bits = np.frombuffer(alive.to_bytes(width, "little"), np.uint8)
        left = np.flatnonzero(np.unpackbits(bits, count=len(index), bitorder="little")[BLOCK:]) + BLOCK
        index, sides, area = index[left], sides[:, left], area[left]
    owners = np.array(owner, np.intp)
    owners[owners >= most] = -1
    return kept[:most], owners


def _in_a_crowd(
    sides: NDArray[np.float64], area: NDArray[np.float64], iou_threshold: float, most: int
) -> tuple[list[int], NDArray[np.intp]]:
    """The work grows with the faces kept: each is compared only with boxes that it may overlap horizontally."""
    order = sides[0].argsort()
    by_left = sides[:, order]
    area = area[order]
    place = np.empty(len(order), np.intp)
    place[order] = np.arange(len(order))
    # Boxes before `first` end left of the box, those from `last` on begin right of it.
    first = np.maximum.accumulate(by_left[2]).searchsorted(sides[0], side="right").tolist()
    last = by_left[0].searchsorted(sides[2]).tolist()
    owner = np.full(len(order), -1, np.intp)  # in the order from left to right
    kept: list[int] = []
    for index, own in enumerate(place.tolist()):
        if owner[own] >= 0:
            continue
        near = slice(first[index], last[index])
        box = by_left[:, own, np.newaxis]
        shared = np.minimum(box[2:], by_left[2:, near])
        shared -= np.maximum(box[:2], by_left[:2, near])
        np.maximum(shared, 0.0, out=shared)
        overlap = shared[0] * shared[1]
        union = area[near] + area[own]
        union -= overlap
        union *= iou_threshold
        near_owner = owner[near]
        near_owner[(near_owner < 0) & (overlap > union)] = len(kept)
        owner[own] = len(kept)
        kept.append(index)
        if len(kept) == most:
            break
    return kept, owner[place]
