"""Postprocessing: against a slow one anchor at a time, and for damaged, empty and crowded outputs."""

from __future__ import annotations

import math
import tracemalloc
from itertools import product

import numpy as np
import pytest
from c_cases import OutputCase, as_rows, output_case
from detectors import SPECS, YUNET
from hypothesis import given, settings
from hypothesis import strategies as st

from retinaface_edge.runtime import Spec, ThresholdError
from retinaface_edge.runtime.contract import BoxCoding, ScoreCoding
from retinaface_edge.runtime.ops.letterbox import letterbox_for
from retinaface_edge.runtime.ops.nms import CROWD, _in_blocks
from retinaface_edge.runtime.ops.postprocess import (
    Bounds,
    QuantParams,
    Selection,
    check_thresholds,
    faces_of,
    non_maximum_suppression,
    postprocess,
    suppress,
)

SPEC = Spec(96, 64)
FLOAT = [QuantParams()] * len(SPEC.outputs)


def outputs_of(value: float = 0.0, score: float = -10.0, spec: Spec = SPEC) -> list[np.ndarray]:
    return [np.full(o.shape, score if o.head == "score" else value, np.float32) for o in spec.outputs]


def overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union."""
    sides = [max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    shared = sides[0] * sides[1]
    return shared / (areas[0] + areas[1] - shared) if shared else 0.0


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def published_box(spec: Spec, values: list[float], x: int, y: int, stride: int, size: float) -> list[float] | None:
    """Corners as each family's own code computes them; None where the four numbers are no box."""
    if spec.box_coding is BoxCoding.DISTANCES:  # SCRFD: distance2bbox(anchor_centers, bbox_preds * stride)
        left, top, right, bottom = (value * stride for value in values)
        cx, cy = (x + spec.origin) * stride, (y + spec.origin) * stride
        corners = [cx - left, cy - top, cx + right, cy + bottom]
        return corners if left + right > 1e-9 and top + bottom > 1e-9 else None
    if spec is YUNET:  # (column + dx) * stride, exp(dw) * stride
        cx, cy = (x + values[0]) * stride, (y + values[1]) * stride
        w, h = (math.exp(value) * stride for value in values[2:])
    else:  # SSD with variances
        cx, cy = ((cell + 0.5) * stride + 0.1 * shift * size for cell, shift in ((x, values[0]), (y, values[1])))
        w, h = (math.exp(0.2 * value) * size for value in values[2:])
    return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]


def anchor_by_anchor(case: OutputCase, spec: Spec) -> list[list[float]]:
    """Rows (score, box, landmarks) as the contract defines them, in plain Python."""
    found = []
    position = 0
    real = {
        output.name: (raw[0].astype(np.float64) - quant.zero_point) * quant.scale
        for output, raw, quant in zip(spec.outputs, case.outputs, case.quant_params, strict=True)
    }
    for stride, sizes in zip(spec.strides, spec.anchor_sizes, strict=True):
        for y, x, (a, size) in product(
            range(math.ceil(spec.height / stride)), range(math.ceil(spec.width / stride)), enumerate(sizes)
        ):
            of = {
                head.name: real[f"{head.name}_{stride}"][y, x, head.channels * a : head.channels * (a + 1)].tolist()
                for head in spec.heads
            }
            position += 1
            if not all(abs(value) <= 500 for values in of.values() for value in values):
                continue
            if spec is YUNET and max(map(abs, of["box"][2:])) > 100:  # e^100 times its cell
                continue
            box = published_box(spec, of["box"], x, y, stride, size)
            score = sigmoid(of["score"][0])
            if spec.score is ScoreCoding.FACE_OBJECT:
                score = math.sqrt(score * sigmoid(of["object"][0]))
            if box and score >= case.score_threshold:
                order = score if spec.score is ScoreCoding.FACE_OBJECT else of["score"][0]
                unit = stride if spec.box_coding is BoxCoding.DISTANCES or spec is YUNET else 0.1 * size
                points = of.get("landmark", [])
                origin = [(cell + spec.origin) * stride for cell in (x, y)]
                marks = [origin[i % 2] + unit * value for i, value in enumerate(points)]
                found.append((-order, position, score, box, marks))
    width, height = case.frame_size
    placement = letterbox_for(spec, width, height)
    scale = [width / placement.width, height / placement.height]
    faces: list[list[tuple[float, list[float], list[float]]]] = []  # the predictions of each, the best first
    for _, _, score, box, marks in sorted(found):
        same = [face for face in faces if overlap(box, face[0][1]) > case.iou_threshold]
        if not same:
            faces.append([(score, box, marks)])
        elif score >= 0.5 and spec.blend_landmarks:
            same[0].append((score, box, marks))
    rows = []
    for face in faces:
        score, box, _ = face[0]
        weights = [weight for weight, _, _ in face]
        blended = [
            sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)
            for values in zip(*(marks for _, _, marks in face), strict=True)
        ]
        rows.append([score, *(value * scale[i % 2] for i, value in enumerate([*box, *blended]))])
    return rows


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_faces_are_those_of_the_definition(spec: Spec, seed: int) -> None:
    random = np.random.default_rng(seed)
    case = output_case(random, spec)
    # Thresholds that no integer grid meets exactly: at a tie, rounding of the sigmoid would decide in the reference.
    case = OutputCase(case.frame_size, case.outputs, case.quant_params, random.choice([0.021, 0.333, 0.611]), 0.3717)
    expected = anchor_by_anchor(case, spec)
    got = as_rows(case.expected(spec))
    assert len(got) == len(expected)
    np.testing.assert_allclose(got, np.reshape(expected, got.shape), rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_integers_give_the_faces_of_their_real_values(spec: Spec) -> None:
    """Thresholds compared in the integer domain find what the dequantised reading finds, at every integer boundary."""
    random = np.random.default_rng(1)
    for threshold in (*(sigmoid(0.0125 * step) for step in range(-6, 7)), 0.0, 1.0, 1e-12, 1 - 1e-12):
        case = output_case(random, spec)
        while case.outputs[0].dtype == np.float32:
            case = output_case(random, spec)
        integers = OutputCase(case.frame_size, case.outputs, case.quant_params, threshold, 1.0).expected(spec)
        scores = []
        values = {
            output.name: (raw.astype(np.float64) - quant.zero_point) * quant.scale
            for output, raw, quant in zip(spec.outputs, case.outputs, case.quant_params, strict=True)
        }
        for stride in spec.strides:
            score = 1 / (1 + np.exp(-values[f"score_{stride}"].reshape(-1)))
            if spec.score is ScoreCoding.FACE_OBJECT:
                score = np.sqrt(score / (1 + np.exp(-values[f"object_{stride}"].reshape(-1))))
            box = values[f"box_{stride}"].reshape(len(score), 4)
            if spec.box_coding is BoxCoding.DISTANCES:
                score = score[(box[:, :2] + box[:, 2:] > 1e-9).all(axis=1)]
            scores.append(score)
        every = np.concatenate(scores)
        unclear = int((np.abs(every - threshold) < 1e-13).sum())  # a tie, which rounding decides
        assert abs(len(integers) - int((every >= threshold + 1e-13).sum())) <= unclear


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_bounds_keep_the_best(spec: Spec) -> None:
    random = np.random.default_rng(3)
    bounded = 0
    for _ in range(25):
        case = output_case(random, spec)
        every = as_rows(case.expected(spec))
        for most in (1, 7):
            np.testing.assert_array_equal(as_rows(case.expected(spec, Bounds(None, most))), every[:most])
        one = as_rows(case.expected(spec, Bounds(1, None)))
        np.testing.assert_array_equal(one[:, :5], every[:1, :5])  # its landmarks are its own, not blended
        # No overlap is too much: then the best candidates are the best faces.
        free = OutputCase(case.frame_size, case.outputs, case.quant_params, case.score_threshold, 1.0)
        np.testing.assert_array_equal(as_rows(free.expected(spec, Bounds(5, None))), as_rows(free.expected(spec))[:5])
        bounded += len(every) > 7
    assert bounded > 3


@pytest.mark.parametrize("bounds", [(0, 1), (1, 0), (-1, None), (None, -1), (2.5, None)])
def test_bounds_below_one_are_refused(bounds: tuple[int | None, int | None]) -> None:
    with pytest.raises(ThresholdError, match="1 or more"):
        check_thresholds(0.5, 0.4, Bounds(*bounds))


@given(st.integers(0, 2**32 - 1), st.integers(CROWD, CROWD + 200), st.sampled_from([0.0, 0.3, 0.4, 1.0]))
@settings(max_examples=20)
def test_suppression_in_a_crowd_is_suppression_in_blocks(seed: int, count: int, threshold: float) -> None:
    random = np.random.default_rng(seed)
    corner = np.round(random.uniform(0, 300, (count, 2)))  # whole numbers: sides that touch
    boxes = np.concatenate([corner, corner + np.round(random.uniform(0, 40, (count, 2)))], axis=1)
    if seed % 3 == 0:
        boxes[random.integers(count)] = (0, 0, 500, 500)
    sides = np.ascontiguousarray(boxes.T)
    area = (sides[2] - sides[0]) * (sides[3] - sides[1])
    for most in (count, 17):
        expected, owner = _in_blocks(sides, area, threshold, most)
        suppression = suppress(boxes, threshold, most)
        assert suppression.kept.tolist() == expected == non_maximum_suppression(boxes, threshold, most).tolist()
        np.testing.assert_array_equal(suppression.owner, owner)


def test_work_is_bounded_on_a_frame_of_nothing_but_faces() -> None:
    """12,600 candidates that do not overlap: not each is compared with each."""
    spec = Spec()
    outputs = [np.full(o.shape, {"score": 3.0, "box": 0.0, "landmark": 0.0}[o.head], np.float32) for o in spec.outputs]
    for output in outputs[3:6]:
        output.reshape(-1, 4)[:, 2:] = -40.0  # sides of e^-8 of the anchor's
    faces = postprocess(spec, outputs, [QuantParams()] * 9, letterbox_for(spec, 640, 480), bounds=Bounds())
    assert len(faces) == Bounds().max_faces == 750
    compared = 0
    real = np.minimum

    def counting(*arguments: object, **options: object) -> object:
        nonlocal compared
        result = real(*arguments, **options)  # type: ignore[call-overload]
        compared += result.size
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "minimum", counting)
        postprocess(spec, outputs, [QuantParams()] * 9, letterbox_for(spec, 640, 480), bounds=Bounds())
    assert compared < 750 * 5000 / 4


@given(st.integers(0, 2**32 - 1), st.integers(0, 300))
def test_suppression_in_blocks_is_suppression_one_by_one(seed: int, count: int) -> None:
    corner = np.random.default_rng(seed).uniform(0, 60, (count, 2))
    boxes = np.concatenate([corner, corner + np.random.default_rng(seed + 1).uniform(0, 30, (count, 2))], axis=1)
    kept: list[int] = []
    owner: list[int] = []
    for index, box in enumerate(boxes.tolist()):
        by = [place for place, other in enumerate(kept) if overlap(box, boxes[other].tolist()) > 0.4]
        owner.append(by[0] if by else len(kept))
        if not by:
            kept.append(index)
    suppression = suppress(boxes, 0.4)
    assert suppression.kept.tolist() == kept
    assert suppression.owner.tolist() == owner


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
    quant_params = [QuantParams(0.1, 0) if dtype is not np.float32 else QuantParams()] * len(spec.outputs)
    outputs = [np.zeros(output.shape, dtype) for output in spec.outputs]
    placement = letterbox_for(spec, 640, 480)
    none = postprocess(spec, outputs, quant_params, placement, 0.9)
    assert (none.scores.shape, none.boxes.shape, none.landmarks.shape) == ((0,), (0, 4), (0, 5, 2))
    every = postprocess(spec, outputs, quant_params, placement, 0.5, 1.0)
    assert len(every) == len(spec.anchors) == 12600
    assert (every.scores == 0.5).all()


def test_a_score_on_the_threshold_is_a_face_in_every_domain() -> None:
    placement = letterbox_for(SPEC, 96, 64)
    for dtype, quant in (
        (np.float32, QuantParams()),
        (np.int8, QuantParams(0.125, -128)),
        (np.uint8, QuantParams(0.125, 3)),
    ):
        outputs = [np.full(o.shape, quant.zero_point, np.float64).astype(dtype) for o in SPEC.outputs]
        zero = postprocess(SPEC, outputs, [quant] * 9, placement, 0.5, 1.0)
        assert len(zero) == len(SPEC.anchors)
        assert len(postprocess(SPEC, outputs, [quant] * 9, placement, 0.5000001, 1.0)) == 0


def test_memory_does_not_grow_with_the_anchors() -> None:
    spec = Spec(1920, 1088)
    outputs = [np.full(o.shape, -10, np.float32) for o in spec.outputs]
    outputs[1][0, 5, 5, 0] = 3
    placement, mask = letterbox_for(spec, 1920, 1088), np.empty(len(spec.anchors), np.bool_)
    quant_params, wanted = [QuantParams()] * 9, Selection(0.5, 0.4, Bounds())
    faces_of(spec, outputs, quant_params, placement, wanted, mask)
    tracemalloc.start()
    assert len(faces_of(spec, outputs, quant_params, placement, wanted, mask)) == 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000 < len(spec.anchors)


@pytest.mark.parametrize("thresholds", [(-0.1, 0.4), (1.1, 0.4), (math.nan, 0.4), (0.5, -1.0), (0.5, math.inf)])
def test_thresholds_outside_of_0_to_1_are_refused(thresholds: tuple[float, float]) -> None:
    with pytest.raises(ThresholdError, match="between 0 and 1"):
        postprocess(SPEC, outputs_of(), FLOAT, letterbox_for(SPEC, 96, 64), *thresholds)
