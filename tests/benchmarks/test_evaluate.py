"""Accuracy on boxes in the forms users have, at the three scales, with sizes and landmarks."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retinaface_edge.benchmarks.accuracy.average_precision import ImageDetections, average_precision
from retinaface_edge.benchmarks.accuracy.datasets import read_boxes
from retinaface_edge.benchmarks.accuracy.result import EvalResult
from retinaface_edge.benchmarks.accuracy.run import evaluate
from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.benchmarks.inference.measurement import Execution
from retinaface_edge.benchmarks.inference.network_under_test import networks_of
from retinaface_edge.benchmarks.inference.scales import (
    MULTI_SCALE,
    ORIGINAL,
    checked_scale,
    detect_at_scale,
    merge,
    tiles_at,
)
from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.runtime import Bundle, Detector, Spec
from retinaface_edge.runtime.backends import load
from retinaface_edge.runtime.ops.iou import iou
from retinaface_edge.runtime.ops.postprocess import Faces


def portrait_set(folder: Path, bundle: Bundle) -> Path:
    """The portrait once as it is and once at a quarter, annotated with what FP32 finds, exactly."""
    detector = Detector.load(bundle, "onnxruntime", "fp32")
    listed = []
    for name, step in (("whole.png", 1), ("quarter.png", 4)):
        frame = np.ascontiguousarray(portrait()[::step, ::step])
        Image.fromarray(frame[:, :, ::-1]).save(folder / name)
        (face,) = detector.detect(frame)
        points = [value + 0.01 * (face.box[2] - face.box[0]) for point in face.landmarks for value in point]
        listed.append({"file": name, "faces": [{"box_xyxy": list(face.box), "landmarks_xy": points}]})
    (folder / "boxes.json").write_text(json.dumps(listed))
    return folder / "boxes.json"


def run(bundle: Bundle, path: Path, **options: Any) -> EvalResult:
    return evaluate(networks_of(bundle, ["* fp32"]), read_boxes(path), Execution(), scale="vga", **options)


def test_fddb_style_boxes_with_landmarks(bundle: Bundle, tmp_path: Path) -> None:
    found = run(bundle, portrait_set(tmp_path, bundle))
    for row in found.results:
        assert row.ap == {"faces": pytest.approx(1.0)} and row.recall == 1.0
        assert row.landmarks is not None and row.landmarks.found == 2 and row.landmarks.failures == 0
        # Every point is off by 1 % of the width in x and in y; the normaliser is √(width·height).
        boxes = [json.loads((tmp_path / "boxes.json").read_text())[i]["faces"][0]["box_xyxy"] for i in (0, 1)]
        expected = [0.01 * np.sqrt(2) * (b[2] - b[0]) / np.sqrt((b[2] - b[0]) * (b[3] - b[1])) for b in boxes]
        assert row.landmarks.nme_mean == pytest.approx(np.mean(expected), rel=1e-3)


def test_coco_boxes_are_the_same_boxes(bundle: Bundle, tmp_path: Path) -> None:
    path = portrait_set(tmp_path, bundle)
    images, annotations = [], []
    for index, entry in enumerate(json.loads(path.read_text())):
        x1, y1, x2, y2 = entry["faces"][0]["box_xyxy"]
        points = np.array(entry["faces"][0]["landmarks_xy"]).reshape(5, 2)
        keypoints = np.concatenate([points, np.full((5, 1), 2)], axis=1).ravel().tolist()
        images.append({"id": index, "file_name": entry["file"]})
        annotations.append({"image_id": index, "bbox": [x1, y1, x2 - x1, y2 - y1], "keypoints": keypoints})
        annotations.append({"image_id": index, "bbox": [0, 0, 30, 30], "iscrowd": 1})
    coco = tmp_path / "coco.json"
    coco.write_text(json.dumps({"images": images, "annotations": annotations}))
    ours, theirs = run(bundle, path).results[0], run(bundle, coco).results[0]
    assert ours.landmarks is not None and theirs.landmarks is not None
    assert ours.ap == theirs.ap and asdict(ours.landmarks) == pytest.approx(asdict(theirs.landmarks))


def test_small_faces_do_not_count_and_a_partial_set_says_so(bundle: Bundle, tmp_path: Path) -> None:
    path = portrait_set(tmp_path, bundle)
    listed = json.loads(path.read_text())
    listed[0]["faces"].append({"box_xyxy": [0, 0, 6, 6]})
    path.write_text(json.dumps([*listed, {"file": "gone.png", "boxes_xyxy": [[0, 0, 9, 9]]}]))
    found = run(bundle, path)
    assert found.dataset.note == "2 of 3 pictures are there"
    assert found.results[0].faces == {"faces": 2}
    assert run(bundle, path, least_face_px=5).results[0].faces == {"faces": 3}


@pytest.mark.parametrize(
    "content",
    ["", "3", "[3]", "[]", '{"images": []}', '[{"file": "a.png"}]', '[{"file": "a.png", "boxes_xyxy": [[1, 2, 3]]}]',
     '[{"file": "a.png", "boxes_xyxy": [["a", 2, 3, 4]]}]', '[{"file": "gone.png", "boxes_xyxy": []}]'],
)  # fmt: skip
def test_a_file_without_annotations_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(MeasurementError, match=r"boxes\.json"):
        read_boxes(tmp_path / "boxes.json")


def test_ap_is_that_of_fp32_on_the_reference_photographs(shared: Path, bundle: Bundle) -> None:
    """The figures of this model that were measured before this evaluator existed."""
    for name, expected in (("fddb", 1.0), ("widerface", 0.6568)):
        dataset = read_boxes(shared / name / "boxes.json")
        found = evaluate(networks_of(bundle, ["openvino fp32"]), dataset, Execution(), scale="vga")
        assert found.results[0].ap["faces"] == pytest.approx(expected, abs=1e-3)


def test_landmarks_meet_the_annotated_ones(shared: Path, bundle: Bundle) -> None:
    dataset = read_boxes(shared / "landmarks" / "landmarks.json")
    found = evaluate(networks_of(bundle, ["openvino *"]), dataset, Execution(), scale="vga")
    for row in found.results:
        assert row.landmarks is not None and row.landmarks.annotated == 112
        assert row.landmarks.nme_mean is not None and row.landmarks.nme_mean < 0.06


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([ORIGINAL, MULTI_SCALE]))
def test_tiles_cover_every_pixel_and_are_as_large_as_the_scale_says(width: int, height: int, scale: str) -> None:
    spec = Spec()
    shown = tiles_at(spec, width, height, scale)
    tiles = [v for v in shown if (v.width, v.height) == (spec.width, spec.height)]
    assert tiles
    columns, rows = np.zeros(width, bool), np.zeros(height, bool)
    for view in tiles:
        columns[view.x : view.x + view.width] = True
        rows[view.y : view.y + view.height] = True
    assert columns.all() and rows.all()
    assert all(v.x >= 0 and v.y >= 0 and (v.x + v.width <= width or v.x == 0) for v in tiles)
    sizes = {(v.width, v.height) for v in shown} - {(width, height)}
    assert sizes <= {(640, 480)} if scale == ORIGINAL else sizes <= {(640, 480), (320, 240)}


@pytest.mark.parametrize("scale", [ORIGINAL, MULTI_SCALE])
def test_a_large_picture_shows_the_same_face_once(bundle: Bundle, spec: Spec, scale: str) -> None:
    artifact = bundle.artifact("onnxruntime", "fp32")
    network = load("onnxruntime", spec, [bundle.read(file) for file in artifact.files], 1)
    canvas = np.full((1400, 1900, 3), 90, np.uint8)
    canvas[500:1012, 600:1112] = portrait()
    (alone,) = Detector.load(bundle, "onnxruntime", "fp32").detect(portrait())
    found = detect_at_scale(spec, network, canvas, scale, 0.5)
    assert len(found) == 1
    box = np.array([alone.box]) + np.array([600, 500, 600, 500])
    assert iou(found.boxes, box)[0, 0] > 0.8
    eye, other = found.landmarks[0, 0], found.landmarks[0, 1]
    assert eye[0] < other[0], "the left eye is to the left, in mirrored views, too"


def test_voting_is_the_mean_weighted_by_score() -> None:
    boxes = np.array([[0.0, 0, 100, 100], [10, 0, 110, 100]])
    found = [
        Faces(np.array([score]), box[None], np.zeros((1, 5, 2))) for score, box in zip((0.9, 0.3), boxes, strict=True)
    ]
    voted = merge(found, vote=True)
    assert voted.boxes[0] == pytest.approx([2.5, 0, 102.5, 100]) and voted.scores.tolist() == [0.9]
    assert merge(found, vote=False).boxes[0] == pytest.approx(boxes[0])


def test_vga_asks_for_a_vga_input() -> None:
    assert checked_scale(Spec(), "vga") == "input"
    with pytest.raises(MeasurementError, match="needs a bundle built at 640x480, this one takes 320x256"):
        checked_scale(Spec(320, 256), "vga")
    with pytest.raises(MeasurementError, match="there is no scale"):
        checked_scale(Spec(), "large")


@given(st.integers(0, 2**32 - 1))
def test_ap_equals_a_slow_reading(seed: int) -> None:
    """All-points AP, one detection at a time; matching best first, each to the free face it overlaps most."""
    random = np.random.default_rng(seed)
    images, rows, total = [], [], 0
    for number in range(3):
        faces = random.uniform(0, 60, (random.integers(0, 6), 4))
        faces[:, 2:] = faces[:, :2] + random.uniform(5, 30, (len(faces), 2))
        boxes = np.concatenate([faces + random.normal(0, 3, faces.shape), faces + random.normal(0, 6, faces.shape)])
        scores = random.permutation(len(boxes)) + random.random()
        counted = random.random(len(faces)) < 0.8
        images.append(ImageDetections(scores.astype(float), boxes, faces, counted))
        total += int(counted.sum())
        rows += [(score, number, box) for score, box in zip(scores, boxes, strict=True)]
    taken: set[tuple[int, int]] = set()
    curve, right, wrong = [], 0, 0
    for _, number, box in sorted(rows, key=lambda row: -row[0]):
        overlaps = iou(box[None], images[number].faces)[0]
        free = [index for index in range(len(overlaps)) if (number, index) not in taken]
        best = max(free, key=lambda index: overlaps[index], default=None)
        if best is not None and overlaps[best] >= 0.5:
            taken.add((number, best))
            right += int(images[number].counted[best])
        else:
            wrong += 1
        if right + wrong:
            curve.append((right / max(total, 1), right / (right + wrong)))
    expected = sum(
        (curve[i][0] - (curve[i - 1][0] if i else 0)) * max(p for _, p in curve[i:]) for i in range(len(curve))
    )
    if total:
        # Equal scores in different images leave the order open; here no two are equal within an image only.
        distinct = len({score for score, _, _ in rows}) == len(rows)
        assert not distinct or average_precision(images) == pytest.approx(expected, abs=1e-9)
    else:
        assert np.isnan(average_precision(images))
