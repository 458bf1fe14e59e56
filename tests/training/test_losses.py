"""The multi-task loss, term by term, against cases worked out by hand; and matching against a loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retinaface_edge.runtime import Spec
from retinaface_edge.runtime.ops.postprocess import decode_boxes, decode_landmarks
from retinaface_edge.training.losses import Targets, match, multi_task

SPEC = Spec(96, 64)
ANCHORS = torch.from_numpy(SPEC.anchors).float()


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def test_terms_are_what_a_calculation_by_hand_gives() -> None:
    label = torch.tensor([1, 0, 0, 0, 0, 0, -1])
    scores = torch.tensor([[0.0, 2.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [3.0, 0.0], [2.0, 0.0], [0.0, 9.0]])
    boxes, landmarks = torch.zeros(7, 4), torch.zeros(7, 10)
    boxes[0] = torch.tensor([0.5, -0.5, 2.0, 0.0])
    landmarks[0, 0] = 3.0
    boxes[6] = 100.0  # neither positive nor negative: no part of any term
    targets = Targets(label, torch.zeros(7, 4), torch.zeros(7, 10), (label == 1)[:, None].expand(-1, 5))
    losses = multi_task(scores, boxes, landmarks, targets, torch.tensor(7.0))
    # One positive, so three negatives: those with logit differences 1, 0 and -1.
    terms = [math.log1p(math.exp(-2.0)), *(math.log1p(math.exp(d)) for d in (1.0, 0.0, -1.0))]
    assert float(losses.classification) == pytest.approx(sum(terms) / 4, rel=1e-5)
    assert float(losses.box) == pytest.approx(0.125 + 0.125 + 1.5, rel=1e-5)
    assert float(losses.landmark) == pytest.approx(2.5, rel=1e-5)
    expected = sum(terms) / 4 + 0.25 * 1.75 + 0.1 * 2.5 + 0.01 * 7.0
    assert float(losses.total) == pytest.approx(expected, rel=1e-5)


def test_a_face_without_landmarks_and_a_picture_without_faces_count_where_they_can() -> None:
    landmarks = torch.full((3, 10), 5.0)
    targets = Targets(
        torch.tensor([1, 0, 0]), torch.zeros(3, 4), torch.zeros(3, 10), torch.zeros(3, 5, dtype=torch.bool)
    )
    assert float(multi_task(torch.zeros(3, 2), torch.zeros(3, 4), landmarks, targets).landmark) == 0.0
    empty = match(ANCHORS, torch.zeros(0, 4), torch.zeros(0, 5, 2), torch.zeros(0, 5, dtype=torch.bool), SPEC.variances)
    count = len(ANCHORS)
    losses = multi_task(torch.zeros(count, 2), torch.zeros(count, 4), torch.zeros(count, 10), empty)
    assert float(losses.total) == pytest.approx(math.log(2.0), rel=1e-5)


@given(st.integers(0, 2**32 - 1))
def test_matching_follows_the_thresholds_and_its_code_decodes_to_the_face(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 4))
    low = random.uniform(-10, 70, (count, 2))
    boxes = np.concatenate([low, low + random.uniform(6, 60, (count, 2))], axis=1)
    points = random.uniform(0, 64, (count, 5, 2))
    targets = match(
        ANCHORS,
        torch.from_numpy(boxes).float(),
        torch.from_numpy(points).float(),
        torch.ones(count, 5, dtype=torch.bool),
        SPEC.variances,
    )
    corners = np.concatenate(
        [SPEC.anchors[:, :2] - SPEC.anchors[:, 2:] / 2, SPEC.anchors[:, :2] + SPEC.anchors[:, 2:] / 2], 1
    )
    overlap = np.array([[iou(anchor, box) for box in boxes] for anchor in corners])
    best = {int(overlap[:, face].argmax()) for face in range(count) if overlap[:, face].max() > 0.3 + 1e-5}
    for anchor, row in enumerate(overlap):
        if min(abs(row.max() - 0.5), abs(row.max() - 0.3)) < 1e-5:
            continue
        expected = 1 if row.max() > 0.5 or anchor in best else 0 if row.max() < 0.3 else -1
        assert int(targets.label[anchor]) == expected
    positive = np.flatnonzero(targets.label.numpy() == 1)
    decoded = decode_boxes(SPEC, positive, targets.box.double().numpy()[positive])
    marks = decode_landmarks(SPEC, positive, targets.landmark.double().numpy()[positive])
    for box, mark in zip(decoded, marks, strict=True):
        face = int(np.abs(boxes - box).max(axis=1).argmin())
        np.testing.assert_allclose(box, boxes[face], atol=1e-3)
        np.testing.assert_allclose(mark, points[face], atol=1e-3)
