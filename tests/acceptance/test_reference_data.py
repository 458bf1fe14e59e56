"""Bars on real photographs: the reference data beside the checkout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from retinaface_edge.benchmarks.accuracy.average_precision import ImageDetections, average_precision
from retinaface_edge.runtime import Bundle, Detector, Faces
from retinaface_edge.runtime.io.images import read_image
from retinaface_edge.runtime.ops.iou import iou

LEAST_SIDE = 10
"""Annotated faces smaller than this in the network's input do not count."""
Picture = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def pictures(shared: Path) -> dict[str, list[Picture]]:
    """By set: frames and their annotated boxes."""
    sets = {}
    for name in ("fddb", "widerface"):
        entries = json.loads((shared / name / "boxes.json").read_text())
        sets[name] = [
            (read_image(shared / name / entry["file"]), np.array(entry["boxes_xyxy"], float).reshape(-1, 4))
            for entry in entries
        ]
    return sets


@pytest.fixture(scope="module")
def found(photo_bundle: Bundle, pictures: dict[str, list[Picture]]) -> dict[tuple[str, str, str], list[Faces]]:
    """Faces of score 0.02 and more, by backend, precision and set."""
    results = {}
    for backend, precision in (
        ("onnxruntime", "fp32"),
        *((b, p) for b in ("openvino", "tflite") for p in ("fp32", "int8")),
    ):
        detector = Detector.load(photo_bundle, backend, precision)
        for name, frames in pictures.items():
            results[backend, precision, name] = [detector.detect(frame, 0.02) for frame, _ in frames]
    return results


def precision_of(faces: list[Faces], frames: list[Picture]) -> float:
    images = []
    for detected, (frame, boxes) in zip(faces, frames, strict=True):
        scale = max(frame.shape[1] / 640, frame.shape[0] / 480)
        counted = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= LEAST_SIDE * scale
        images.append(ImageDetections(detected.scores, detected.boxes, boxes, counted))
    return average_precision(images)


@pytest.mark.parametrize("backend", ["openvino", "tflite"])
@pytest.mark.parametrize("name", ["fddb", "widerface"])
def test_fp32_detections_are_the_same_on_every_backend(
    found: dict[tuple[str, str, str], list[Faces]], backend: str, name: str
) -> None:
    """Both ways, every face of score 0.5 and more has a counterpart with IoU of at least 0.99."""
    total = 0
    for ours, theirs in zip(found[backend, "fp32", name], found["onnxruntime", "fp32", name], strict=True):
        overlaps = iou(ours.boxes, theirs.boxes)
        for rows, scores in ((overlaps, ours.scores), (overlaps.T, theirs.scores)):
            sure = rows[scores >= 0.5]
            total += len(sure)
            assert not len(sure) or sure.max(axis=1).min() >= 0.99
    assert total > 600


@pytest.mark.parametrize(("backend", "most"), [("openvino", 0.002), ("tflite", 0.004)])
@pytest.mark.parametrize("name", ["fddb", "widerface"])
def test_int8_keeps_the_average_precision(
    found: dict[tuple[str, str, str], list[Faces]],
    pictures: dict[str, list[Picture]],
    backend: str,
    most: float,
    name: str,
) -> None:
    fp32 = precision_of(found["onnxruntime", "fp32", name], pictures[name])
    int8 = precision_of(found[backend, "int8", name], pictures[name])
    assert fp32 > 0.6
    assert int8 >= fp32 - most, f"{backend} INT8 {int8:.4f}, FP32 {fp32:.4f}"
