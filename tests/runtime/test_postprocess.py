"""Postprocessing: against a slow one anchor at a time, and for damaged, empty and crowded outputs."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from c_cases import OutputCase, as_rows, output_case
from hypothesis import given, settings
from hypothesis import strategies as st

from retinaface_edge.runtime import Spec, ThresholdError
from retinaface_edge.runtime.ops.letterbox import letterbox_for
from retinaface_edge.runtime.ops.postprocess import (
    Bounds,
    Grid,
    Selection,
    faces_of,
    non_maximum_suppression,
    postprocess,
)

SPEC = Spec(96, 64)
FLOAT = [Grid()] * len(SPEC.outputs)


def outputs_of(value: float = 0.0, score: float = -10.0, spec: Spec = SPEC) -> list[np.ndarray]:
    return [np.full(o.shape, score if o.head == "score" else value, np.float32) for o in spec.outputs]


def overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union."""
    sides = [max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    shared = sides[0] * sides[1]
    return shared / (areas[0] + areas[1] - shared) if shared else 0.0


def anchor_by_anchor(case: OutputCase, spec: Spec) -> list[list[float]]:
    """Rows (score, box, landmarks) as the contract defines them, in plain Python."""
    found = []
    position, levels = 0, len(spec.strides)
    for level, (stride, sizes) in enumerate(zip(spec.strides, spec.anchor_sizes, strict=True)):

        def real(head: int, level: int = level) -> np.ndarray:
            output, grid = case.outputs[head * levels + level], case.grids[head * levels + level]
            return (output[0].astype(np.float64) - grid.zero_point) * grid.scale

        score, box, landmark = real(0), real(1), real(2)
        for y in range(spec.height // stride):
            for x in range(spec.width // stride):
                for a, size in enumerate(sizes):
                    values = [score[y, x, a], *box[y, x, 4 * a : 4 * a + 4], *landmark[y, x, 10 * a : 10 * a + 10]]
                    if all(abs(value) <= 500 for value in values):
                        found.append((-values[0], position, (x + 0.5) * stride, (y + 0.5) * stride, size, values))
                    position += 1
    width, height = case.frame_size
    placement = letterbox_for(spec, width, height)
    scale = [width / placement.width, height / placement.height]
    rows: list[list[float]] = []
    boxes: list[list[float]] = []
    for _, _, cx, cy, size, values in sorted(found):
        score_ = 1 / (1 + math.exp(-values[0]))
        if not score_ >= case.score_threshold:
            continue
        middle = [cx + 0.1 * values[1] * size, cy + 0.1 * values[2] * size]
        half = [size * math.exp(0.2 * value) / 2 for value in values[3:5]]
        box_ = [middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1]]
        if all(overlap(box_, other) <= case.iou_threshold for other in boxes):
            boxes.append(box_)
            points = [((cx, cy)[i % 2] + 0.1 * value * size) * scale[i % 2] for i, value in enumerate(values[5:])]
            rows.append([score_, *(side * scale[i % 2] for i, side in enumerate(box_)), *points])
    return rows


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_faces_are_those_of_the_definition(seed: int) -> None:
    random = np.random.default_rng(seed)
    case = output_case(random, SPEC)
    # Thresholds that no integer grid meets exactly: at a tie, rounding of the sigmoid would decide in the reference.
    case = OutputCase(case.frame_size, case.outputs, case.grids, random.choice([0.021, 0.333, 0.611]), 0.3717)
    expected = anchor_by_anchor(case, SPEC)
    got = as_rows(case.expected(SPEC))
    assert len(got) == len(expected)
    np.testing.assert_allclose(got, np.reshape(expected, (-1, 15)), rtol=1e-9, atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(0, 300))
def test_suppression_in_blocks_is_suppression_one_by_one(seed: int, count: int) -> None:
    corner = np.random.default_rng(seed).uniform(0, 60, (count, 2))
    boxes = np.concatenate([corner, corner + np.random.default_rng(seed + 1).uniform(0, 30, (count, 2))], axis=1)
    kept: list[int] = []
    for index, box in enumerate(boxes.tolist()):
        if all(overlap(box, boxes[other].tolist()) <= 0.4 for other in kept):
            kept.append(index)
    assert non_maximum_suppression(boxes, 0.4).tolist() == kept


def test_order_is_score_then_anchor() -> None:
    outputs = outputs_of()
    outputs[0][0, 0, 0, 0] = outputs[0][0, 7, 11, 0] = 1.0
    outputs[1][0, 2, 3, 0] = 2.0
    outputs[2][0, 0, 0, 0] = 1.0
    faces = postprocess(SPEC, outputs, FLOAT, letterbox_for(SPEC, 96, 64))
    sides = (faces.boxes[:, 2] - faces.boxes[:, 0]).tolist()
    assert sides == [64.0, 16.0, 16.0, 256.0]
    assert faces.boxes[1, 0] < faces.boxes[2, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, -3e38])
@pytest.mark.parametrize("head", ["score", "box", "landmark"])
@pytest.mark.filterwarnings("error")
def test_damaged_values_make_no_face_and_spoil_no_other(bad: float, head: str) -> None:
    outputs = outputs_of()
    outputs[1][0, 1, 1, 0] = outputs[1][0, 3, 5, 1] = 5.0
    channels = {"score": 1, "box": 4, "landmark": 10}[head]
    for channel in range(channels):
        damaged = [output.copy() for output in outputs]
        index = [output.head for output in SPEC.outputs].index(head) + 1
        damaged[index][0, 1, 1, channel] = bad
        faces = postprocess(SPEC, damaged, FLOAT, letterbox_for(SPEC, 96, 64), iou_threshold=1.0)
        assert len(faces) == 1
        assert np.isfinite(as_rows(faces)).all()
    everywhere = [np.full_like(output, bad) for output in outputs]
    for threshold in (0.0, 0.5, 1.0):
        assert len(postprocess(SPEC, everywhere, FLOAT, letterbox_for(SPEC, 96, 64), threshold)) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.uint8])
def test_no_candidate_and_only_candidates(dtype: type) -> None:
    spec = Spec()
    grids = [Grid(0.1, 0) if dtype is not np.float32 else Grid()] * len(spec.outputs)
    outputs = [np.zeros(output.shape, dtype) for output in spec.outputs]
    placement = letterbox_for(spec, 640, 480)
    none = postprocess(spec, outputs, grids, placement, 0.9)
    assert (none.scores.shape, none.boxes.shape, none.landmarks.shape) == ((0,), (0, 4), (0, 5, 2))
    every = postprocess(spec, outputs, grids, placement, 0.5, 1.0)
    assert len(every) == len(spec.anchors) == 12600
    assert (every.scores == 0.5).all()


def test_a_score_on_the_threshold_is_a_face_in_every_domain() -> None:
    placement = letterbox_for(SPEC, 96, 64)
    for dtype, grid in ((np.float32, Grid()), (np.int8, Grid(0.125, -128)), (np.uint8, Grid(0.125, 3))):
        outputs = [np.full(o.shape, grid.zero_point, np.float64).astype(dtype) for o in SPEC.outputs]
        zero = postprocess(SPEC, outputs, [grid] * 9, placement, 0.5, 1.0)
        assert len(zero) == len(SPEC.anchors)
        assert len(postprocess(SPEC, outputs, [grid] * 9, placement, 0.5000001, 1.0)) == 0


def test_memory_does_not_grow_with_the_anchors() -> None:
    spec = Spec(1920, 1088)
    outputs = [np.full(o.shape, -10, np.float32) for o in spec.outputs]
    outputs[1][0, 5, 5, 0] = 3
    placement, mask = letterbox_for(spec, 1920, 1088), np.empty(len(spec.anchors), np.bool_)
    grids, wanted = [Grid()] * 9, Selection(0.5, 0.4, Bounds())
    faces_of(spec, outputs, grids, placement, wanted, mask)
    tracemalloc.start()
    assert len(faces_of(spec, outputs, grids, placement, wanted, mask)) == 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000 < len(spec.anchors)


@pytest.mark.parametrize("thresholds", [(-0.1, 0.4), (1.1, 0.4), (math.nan, 0.4), (0.5, -1.0), (0.5, math.inf)])
def test_thresholds_outside_of_0_to_1_are_refused(thresholds: tuple[float, float]) -> None:
    with pytest.raises(ThresholdError, match="between 0 and 1"):
        postprocess(SPEC, outputs_of(), FLOAT, letterbox_for(SPEC, 96, 64), *thresholds)
