"""Ids across frames: kept through crossings and gaps, never used twice."""

from __future__ import annotations

import numpy as np
import pytest
from crossing_faces import FIXED, crossing_video, switches

from retinaface_edge.runtime import Bundle, Detector, Faces
from retinaface_edge.runtime.tracking import Tracker


def test_five_faces_that_cross_keep_their_ids(bundle: Bundle) -> None:
    detector, tracker = Detector.load(bundle, "openvino", "int8"), Tracker()
    truth, found, hidden = [], [], 0
    for frame, boxes, seen in crossing_video(FIXED):
        faces = detector.detect(frame)
        ids = tracker.update(faces)
        assert len(set(ids.tolist())) == len(ids)
        hidden += int((seen < 0.5).any())
        truth.append(np.where(seen[:, None] < 0.5, np.nan, boxes))
        found.append((faces, ids))
    assert hidden > 50, "they do cross"
    assert len({number for _, ids in found for number in ids.tolist()}) >= 5, "each is found"
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


def test_of_two_faces_that_were_hidden_together_the_size_tells_which_is_which() -> None:
    """They are lost beside each other, and found again where either may be."""

    def both(large_x: float, small_x: float) -> Faces:
        parts = faces_at((large_x, 100.0), size=50.0), faces_at((small_x, 100.0), size=40.0)
        return Faces(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "boxes", "landmarks"))
        )

    tracker = Tracker()
    for _ in range(20):
        ids = tracker.update(both(176.0, 184.0))
    for _ in range(8):
        tracker.update(faces_at())
    assert tracker.update(both(184.0, 176.0)).tolist() == ids.tolist() == [1, 2]
