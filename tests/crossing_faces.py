"""A rendered video of five faces that cross, with the truth of where each is, and the count of switched ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.runtime import Faces
from retinaface_edge.runtime.ops.iou import iou

FRAMES, WIDTH, HEIGHT = 300, 640, 480
HEAD = np.array([58, 47, 155, 170]) / 200
"""Where the face is in the head's patch, as a share of its side."""


@dataclass(frozen=True)
class Paths:
    """Five square patches: each goes to and fro on its own line, and the lines cross.

    `sides` (5,) in pixels, `speed` (5, 2) in pixels per frame, `start` (5, 2) of the top left corner.
    """

    sides: np.ndarray
    speed: np.ndarray
    start: np.ndarray

    def corners(self, frame: int) -> np.ndarray:
        """Top left corners (5, 2) of the patches."""
        room = np.array([WIDTH, HEIGHT])[None] - self.sides[:, None]
        turned = np.mod(self.start + self.speed * frame, 2 * room)
        corners: np.ndarray = np.where(turned > room, 2 * room - turned, turned)
        return corners


FIXED = Paths(
    np.array([150, 180, 125, 165, 140]),
    np.array([[5.0, 1.1], [-4.1, 1.7], [3.3, -2.2], [-2.7, -1.3], [4.4, 2.4]]),
    np.array([[0.0, 60], [420, 20], [100, 300], [380, 260], [250, 150]]),
)


def random_paths(seed: int) -> Paths:
    """Other sides, speeds and places of the same ranges."""
    random = np.random.default_rng(seed)
    speed = np.column_stack([random.uniform(2.5, 5.0, 5), random.uniform(1.0, 2.5, 5)])
    start = random.uniform(0, (WIDTH, HEIGHT), (5, 2))
    return Paths(random.integers(120, 185, 5), speed * random.choice([-1.0, 1.0], (5, 2)), start)


def crossing_video(paths: Paths) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Frames, where their five faces are, (5, 4), and how much of each is seen; later ones lie over earlier ones."""
    from PIL import Image

    head = Image.fromarray(portrait()[10:210, 120:320])
    patches = [np.asarray(head.resize((side, side))) for side in paths.sides.tolist()]
    for index in range(FRAMES):
        frame, corners = np.full((HEIGHT, WIDTH, 3), 70, np.uint8), paths.corners(index).round().astype(int)
        owner = np.full((HEIGHT, WIDTH), -1)
        for number, (patch, (x, y)) in enumerate(zip(patches, corners, strict=True)):
            frame[y : y + len(patch), x : x + len(patch)] = patch
            owner[y : y + len(patch), x : x + len(patch)] = number
        boxes = np.tile(corners, 2) + HEAD * paths.sides[:, None]
        seen = [
            (owner[y1:y2, x1:x2] == number).mean() for number, (x1, y1, x2, y2) in enumerate(boxes.round().astype(int))
        ]
        yield frame, boxes, np.array(seen)


def switches(truth: list[np.ndarray], found: list[tuple[Faces, np.ndarray]]) -> int:
    """How often a face has another id than when it was last seen (Bernardin and Stiefelhagen 2008).

    A row of `truth` is NaN where more than half of the face is hidden.
    """
    last: dict[int, int] = {}
    count = 0
    for boxes, (faces, ids) in zip(truth, found, strict=True):
        overlaps = np.nan_to_num(iou(faces.boxes, boxes))
        while overlaps.size and overlaps.max() >= 0.5:
            row, person = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
            count += last.get(int(person), ids[row]) != ids[row]
            last[int(person)] = ids[row]
            overlaps[row, :] = overlaps[:, person] = 0.0
    return count
