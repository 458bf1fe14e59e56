"""Ids across frames: kept through crossings and gaps, never used twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.runtime import Bundle, Detector, Faces
from retinaface_edge.runtime.ops.iou import iou
from retinaface_edge.runtime.tracking import Tracker

FRAMES, WIDTH, HEIGHT = 300, 640, 480
SIDES = np.array([150, 180, 125, 165, 140])
HEAD = np.array([58, 47, 155, 170]) / 200
"""Where the face is in the head's patch, as a share of its side."""


def places(frame: int) -> np.ndarray:
    """Top left corners (5, 2) of the patches: each goes to and fro on its own line, and the lines cross."""
    speed = np.array([[5.0, 1.1], [-4.1, 1.7], [3.3, -2.2], [-2.7, -1.3], [4.4, 2.4]])
    start = np.array([[0.0, 60], [420, 20], [100, 300], [380, 260], [250, 150]])
    room = np.array([WIDTH, HEIGHT])[None] - SIDES[:, None]
    turned = np.mod(start + speed * frame, 2 * room)
    return np.where(turned > room, 2 * room - turned, turned)


def crossing_video() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Frames, where their five faces are, (5, 4), and how much of each is seen; later ones lie over earlier ones."""
    from PIL import Image

    head = Image.fromarray(portrait()[10:210, 120:320])
    patches = [np.asarray(head.resize((side, side))) for side in SIDES.tolist()]
    for index in range(FRAMES):
        frame, corners = np.full((HEIGHT, WIDTH, 3), 70, np.uint8), places(index).round().astype(int)
        owner = np.full((HEIGHT, WIDTH), -1)
        for number, (patch, (x, y)) in enumerate(zip(patches, corners, strict=True)):
            frame[y : y + len(patch), x : x + len(patch)] = patch
            owner[y : y + len(patch), x : x + len(patch)] = number
        boxes = np.tile(corners, 2) + HEAD * SIDES[:, None]
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
    assert len(last) == 5
    return count


def test_five_faces_that_cross_keep_their_ids(bundle: Bundle) -> None:
    detector, tracker = Detector.load(bundle, "openvino", "int8"), Tracker()
    truth, found, hidden = [], [], 0
    for frame, boxes, seen in crossing_video():
        faces = detector.detect(frame)
        ids = tracker.update(faces)
        assert len(set(ids.tolist())) == len(ids)
        hidden += int((seen < 0.5).any())
        truth.append(np.where(seen[:, None] < 0.5, np.nan, boxes))
        found.append((faces, ids))
    assert hidden > 50, "they do cross"
    assert switches(truth, found) <= 2


def faces_at(*centres: tuple[float, float], size: float = 40.0, points: int = 5) -> Faces:
    centre = np.array(centres, float).reshape(-1, 2)
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    landmarks = centre[:, None] + np.array([[-8, -6], [8, -6], [0, 2], [-6, 10], [6, 10]])[None, :points]
    return Faces(np.full(len(centre), 0.9), boxes, landmarks)


@pytest.mark.parametrize("points", [0, 5])
def test_two_faces_that_pass_through_each_other_keep_their_ids(points: int) -> None:
    tracker = Tracker()
    for step in range(100):
        ids = tracker.update(faces_at((4.0 * step, 100), (400 - 4.0 * step, 102), points=points))
        assert ids.tolist() == [1, 2]


def test_order_of_detections_does_not_matter() -> None:
    tracker = Tracker()
    for step in range(20):
        places = [(50.0 * number + step, 60.0) for number in range(4)]
        order = np.random.default_rng(step).permutation(4)
        ids = tracker.update(faces_at(*[places[index] for index in order]))
        if step == 0:
            names = dict(zip(order.tolist(), ids.tolist(), strict=True))
        assert [names[index] for index in order.tolist()] == ids.tolist()


def test_a_face_that_was_hidden_comes_back_where_it_was_going() -> None:
    tracker = Tracker()
    for step in range(20):
        tracker.update(faces_at((5.0 * step, 80)))
    for _ in range(15):
        assert tracker.update(faces_at()).size == 0
    assert tracker.update(faces_at((5.0 * 35, 80))).tolist() == [1]


def test_ids_are_never_used_twice() -> None:
    tracker = Tracker(patience=3)
    seen: list[int] = []
    for step in range(10):
        seen += tracker.update(faces_at((200.0 * step, 50))).tolist()
        for _ in range(5):
            tracker.update(faces_at())
    assert seen == list(range(1, 11))
