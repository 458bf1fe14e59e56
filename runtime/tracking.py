"""Ids of faces across the frames of a video, from where faces are and how they move; nobody is recognised.

Each track predicts the mean of its face's landmarks by constant velocity, and the size of its box as what it was. The
differences to a face are taken as normally distributed, the spread of the position growing while a track is not seen,
and the likeliest pairs of tracks and faces are matched first. A track without a face continues as predicted for a
while, so that a face keeps its id behind another one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .ops.faces import Faces

POSITION_GAIN, VELOCITY_GAIN, SIZE_GAIN = 0.9, 0.12, 0.1
"""How much of the difference to the prediction goes into the position, the velocity and the size."""
POSITION_SPREAD, SPREAD_PER_UNSEEN, MOST_SPREAD = 0.12, 0.03, 2.5
"""Standard deviation of a position from its prediction, as a share of the size; more for every unseen frame."""
FIRST_SPREAD = 0.3
"""The same where no velocity is known yet."""
SIZE_SPREAD, SHRUNK = 0.08, 2.0
"""That of the logarithm of the size. A face that is partly hidden seems smaller, so it is larger that way."""
MOST_DEVIATIONS, MOST_GROWTH = 5.0, 0.35
"""A face further away, or whose size differs by a larger logarithm, is another face."""
UNSEEN_SPEED = 0.97
"""An unseen track slows down by this factor per frame."""


@dataclass
class _Track:
    id: int
    point: NDArray[np.float64]
    velocity: NDArray[np.float64]
    size: float
    """Natural logarithm of √(box area)."""
    missed: int = 0
    seen: int = 1


class Tracker:
    """Assigns ids to the faces of consecutive frames: integers from 1, never reused.

    A track ends after `patience` frames without its face: three seconds at 30 frames per second by default.

    >>> tracker = Tracker()
    >>> for faces in detector.detect_many(frames):
    ...     ids = tracker.update(faces)
    """

    def __init__(self, patience: int = 90) -> None:
        self._patience, self._next = patience, 1
        self._tracks: list[_Track] = []

    def update(self, faces: Faces) -> NDArray[np.int64]:
        """Ids (n,) of the faces of the next frame, in their order."""
        for track in self._tracks:
            track.point = track.point + track.velocity
        ids = np.zeros(len(faces), np.int64)
        points, sizes = _measured(faces)
        for row, column in _pairs(self._unlikeliness(points, sizes)):
            _follow(self._tracks[row], points[column], float(sizes[column]))
            ids[column] = self._tracks[row].id
        matched = set(ids.tolist())
        for track in self._tracks:
            if track.id not in matched:
                track.missed += 1
                track.velocity = track.velocity * UNSEEN_SPEED
        # A face seen once and then not again was hardly one.
        self._tracks = [t for t in self._tracks if t.missed <= (self._patience if t.seen > 2 else 2)]
        for column in np.flatnonzero(ids == 0).tolist():
            ids[column] = self._next
            self._tracks.append(_Track(self._next, points[column], np.zeros(2), float(sizes[column])))
            self._next += 1
        return ids

    def _unlikeliness(self, points: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """(tracks, faces): −2 × the logarithm of the density but for a constant; infinite where it is another face."""
        if not self._tracks or not len(points):
            return np.zeros((len(self._tracks), len(points)))
        own = np.array([track.size for track in self._tracks])[:, None]
        missed = np.array([track.missed for track in self._tracks])[:, None]
        predicted = np.array([track.point for track in self._tracks])
        known = np.array([track.seen > 1 for track in self._tracks])[:, None]
        spread = np.where(known, POSITION_SPREAD, FIRST_SPREAD) + SPREAD_PER_UNSEEN * missed
        spread = np.minimum(spread, MOST_SPREAD)
        away = np.linalg.norm(points[None] - predicted[:, None], axis=2) / (np.exp(own) * spread)
        growth = sizes[None] - own
        deviation = growth / np.where(growth < 0.0, SHRUNK * SIZE_SPREAD, SIZE_SPREAD)
        possible = (away < MOST_DEVIATIONS) & (np.abs(growth) < MOST_GROWTH)
        return np.asarray(np.where(possible, away**2 + deviation**2 + 4.0 * np.log(spread), np.inf))


def _pairs(unlikeliness: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Rows and columns that belong together: the likeliest pair first, each row and column once."""
    left, pairs = unlikeliness.copy(), []
    while left.size and left.min() < np.inf:
        row, column = (int(index) for index in np.unravel_index(int(left.argmin()), left.shape))
        pairs.append((row, column))
        left[row, :] = left[:, column] = np.inf
    return pairs


def _measured(faces: Faces) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The position (n, 2) of each face, by its landmarks where there are any, and the logarithm of its size."""
    low, high = faces.boxes[:, :2], faces.boxes[:, 2:]
    sizes = np.log(np.maximum((high - low).prod(axis=1), 1e-12)) / 2.0
    points = faces.landmarks.mean(axis=1) if faces.landmarks.shape[1] else (low + high) / 2.0
    return np.asarray(points, np.float64), np.asarray(sizes, np.float64)


def _follow(track: _Track, point: NDArray[np.float64], size: float) -> None:
    difference = point - track.point
    # The second sighting is the first that tells a velocity: it is taken as it is. Means, as long as there are few.
    share = 1.0 / (track.seen + 1)
    velocity = 1.0 if track.seen == 1 else max(VELOCITY_GAIN, share)
    track.velocity = track.velocity + velocity * difference / (1.0 + track.missed)
    track.point = track.point + (1.0 if track.seen == 1 else POSITION_GAIN) * difference
    track.size += max(SIZE_GAIN, share) * (size - track.size)
    track.missed, track.seen = 0, track.seen + 1
