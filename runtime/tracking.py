"""Ids of faces across the frames of a video, from where faces are and how they move; nobody is recognised.

Each track predicts its face by constant velocity (an alpha–beta filter over the centre and the logarithm of the size)
and takes the detection that lies nearest: by overlap of boxes, distance of landmarks and ratio of sizes, the best pairs
first. A track without a detection continues as predicted for a while, so that a face keeps its id behind another one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .ops.faces import Faces
from .ops.iou import iou

POSITION_GAIN, VELOCITY_GAIN, SIZE_VELOCITY_GAIN = 0.7, 0.25, 0.05
"""How much of a surprise goes into the position and into the velocity."""
NEAR = 1.0
"""Faces further from the prediction than this share of their size are other faces."""
NEAR_GROWTH, FARTHEST = 0.1, 3.0
"""An unseen face may have turned: that share grows by so much per frame, up to a limit."""
GROWTH = 1.6
"""A face does not grow or shrink by more than this from one frame to the next."""
MISS_PENALTY = 0.05
"""Taken from the likeness for every frame that a track was not seen: of two, the visible one is the likelier."""
LEAST_SPEED_KEPT = 0.98
"""An unseen track slows down by this factor per frame."""


@dataclass
class _Track:
    id: int
    state: NDArray[np.float64]
    """Centre x, y and log width, log height."""
    velocity: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    """Relative to the centre, in widths and heights of the box."""
    missed: int = 0
    seen: int = 1

    @property
    def box(self) -> NDArray[np.float64]:
        half = np.exp(self.state[2:]) / 2.0
        return np.concatenate([self.state[:2] - half, self.state[:2] + half])

    @property
    def points(self) -> NDArray[np.float64]:
        return self.landmarks * np.exp(self.state[2:]) + self.state[:2]


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
            track.state = track.state + track.velocity
        ids = np.zeros(len(faces), np.int64)
        for row, column in _pairs(self._likeness(faces)):
            _follow(self._tracks[row], faces, column)
            ids[column] = self._tracks[row].id
        matched = set(ids.tolist())
        for track in self._tracks:
            if track.id not in matched:
                track.missed += 1
                # A face that goes behind another seems to shrink before it is lost: its size stays.
                track.velocity = np.concatenate([track.velocity[:2] * LEAST_SPEED_KEPT, np.zeros(2)])
        # A face seen once and then not again was hardly one.
        self._tracks = [t for t in self._tracks if t.missed <= (self._patience if t.seen > 2 else 2)]
        for column in np.flatnonzero(ids == 0).tolist():
            ids[column] = self._next
            self._tracks.append(_begin(self._next, faces, column))
            self._next += 1
        return ids

    def _likeness(self, faces: Faces) -> NDArray[np.float64]:
        """(tracks, faces): above 0 where a face may be the track's next one; larger is likelier."""
        if not self._tracks or not len(faces):
            return np.zeros((len(self._tracks), len(faces)))
        predicted = np.array([track.box for track in self._tracks])
        sizes = np.sqrt((faces.boxes[:, 2:] - faces.boxes[:, :2]).prod(axis=1))
        own = np.sqrt((predicted[:, 2:] - predicted[:, :2]).prod(axis=1))
        overlap = iou(predicted, faces.boxes)
        distance = self._distance(predicted, faces) / np.minimum(sizes[None], own[:, None])
        growth = np.abs(np.log(sizes[None] / own[:, None])) / np.log(GROWTH)
        missed = np.array([[track.missed] for track in self._tracks])
        near = np.minimum(NEAR + NEAR_GROWTH * missed, FARTHEST)
        likeness = overlap + (1.0 - distance / near) + (1.0 - growth) - MISS_PENALTY * missed
        # Above 0 for every pair that is possible at all, however long the track was not seen.
        return np.asarray(np.where((distance < near) & (growth < 1.0), np.maximum(likeness, 1e-6), 0.0))

    def _distance(self, predicted: NDArray[np.float64], faces: Faces) -> NDArray[np.float64]:
        """Mean distance of landmarks in pixels, or that of the centres where there are none."""
        if faces.landmarks.shape[1]:
            points = np.array([track.points for track in self._tracks])
            gaps = points[:, None] - faces.landmarks[None]
            return np.asarray(np.linalg.norm(gaps, axis=-1).mean(axis=-1))
        centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2.0
        own = (predicted[:, :2] + predicted[:, 2:]) / 2.0
        return np.asarray(np.linalg.norm(own[:, None] - centres[None], axis=-1))


def _pairs(likeness: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Rows and columns that belong together: the likeliest pair first, each row and column once."""
    left, pairs = likeness.copy(), []
    while left.size and left.max() > 0.0:
        row, column = (int(index) for index in np.unravel_index(int(left.argmax()), left.shape))
        pairs.append((row, column))
        left[row, :] = left[:, column] = 0.0
    return pairs


def _measured(faces: Faces, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = faces.boxes[index, :2], faces.boxes[index, 2:]
    side = np.maximum(high - low, 1e-6)
    centre = (low + high) / 2.0
    return np.concatenate([centre, np.log(side)]), (faces.landmarks[index] - centre) / side


def _begin(number: int, faces: Faces, index: int) -> _Track:
    state, landmarks = _measured(faces, index)
    return _Track(number, state, np.zeros(4), landmarks)


def _follow(track: _Track, faces: Faces, index: int) -> None:
    measured, landmarks = _measured(faces, index)
    surprise = measured - track.state
    # The second sighting is the first that tells a velocity: it is taken as it is.
    gain = 1.0 if track.seen == 1 else VELOCITY_GAIN
    track.velocity[:2] += gain * surprise[:2] / (1.0 + track.missed)
    track.velocity[2:] += SIZE_VELOCITY_GAIN * surprise[2:] / (1.0 + track.missed)
    track.state = track.state + (1.0 if track.seen == 1 else POSITION_GAIN) * surprise
    track.landmarks = landmarks
    track.missed, track.seen = 0, track.seen + 1
