"""The same INT8 file on another kernel set stays the same detector, on real photographs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from acceptance.bars.kernel_drift import KERNELS, Drift, drift, kernel_drift, kernel_faces
from retinaface_edge.calibration.dataset.image_set import image_folder
from retinaface_edge.calibration.recipe import read_recipe
from retinaface_edge.export.build import BuildRequest, build
from retinaface_edge.export.checkpoints.demo import demo_file
from retinaface_edge.runtime import Bundle, Detector, Faces, Spec
from retinaface_edge.runtime.io.images import read_image


@pytest.fixture(scope="module")
def frames(shared: Path) -> list[np.ndarray]:
    entries = json.loads((shared / "widerface" / "boxes.json").read_text())
    return [read_image(shared / "widerface" / entry["file"]) for entry in entries]


@pytest.fixture(scope="module")
def found(photo_bundle: Bundle, frames: list[np.ndarray]) -> dict[str, list[Faces]]:
    """The faces of score 0.5 and more, by kernel set."""
    return {name: kernel_faces(photo_bundle, frames, name) for name in KERNELS}


def test_xnnpack_gives_the_references_faces_to_the_bit_where_all_is_integers(
    shared: Path, spec: Spec, stages: Path, frames: list[np.ndarray], tmp_path: Path
) -> None:
    images = image_folder(shared / "calibration", 100)
    integers = build(
        BuildRequest(
            demo_file(), (spec.width, spec.height), images, read_recipe("fast"), tmp_path / "fast", cache=stages
        )
    )
    few = frames[::4]
    ours, theirs = (kernel_faces(integers, few, name) for name in ("xnnpack", "reference"))
    assert sum(map(len, theirs)) > 150
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.landmarks, b.landmarks)
        np.testing.assert_array_equal(a.scores, b.scores)


def test_kernels_match_each_others_faces_and_move_no_corner_far(found: dict[str, list[Faces]]) -> None:
    """LiteRT's own kernels round negative halves of fixed-point numbers up, its reference away from 0, on any scale."""
    between = kernel_drift(found)
    assert set(between) == {("xnnpack", "builtin"), ("xnnpack", "reference"), ("builtin", "reference")}
    for pair, figures in between.items():
        assert min(figures.faces) > 600
        assert min(figures.matched) >= 0.98, (pair, figures)
        assert figures.corner_shift <= 0.25, (pair, figures)


def test_the_runtime_is_xnnpack(photo_bundle: Bundle, frames: list[np.ndarray], found: dict[str, list[Faces]]) -> None:
    """The figures are about what ships: the runtime's TFLite backend is one of the kernel sets compared."""
    detector = Detector.load(photo_bundle, "tflite", "int8")
    for frame, faces in zip(frames[:3], found["xnnpack"][:3], strict=True):
        np.testing.assert_array_equal(detector.detect(frame).boxes, faces.boxes)


def faces(*boxes: tuple[float, float, float, float]) -> Faces:
    count = len(boxes)
    return Faces(np.linspace(0.9, 0.6, count), np.array(boxes, float).reshape(-1, 4), np.zeros((count, 5, 2)))


def test_drift_matches_once_and_measures_corners_as_distances() -> None:
    still, moved = (10.0, 10.0, 50.0, 50.0), (13.0, 14.0, 53.0, 54.0)
    assert drift([faces(still)], [faces(moved)]) == Drift((1, 1), (1.0, 1.0), 5.0)
    twice = drift([faces(still, moved)], [faces(still)])
    assert twice == Drift((2, 1), (0.5, 1.0), 0.0)
    apart = drift([faces(still)], [faces((200.0, 200.0, 220.0, 220.0))])
    assert apart.matched == (0.0, 0.0)
    assert np.isnan(apart.corner_shift)
    assert drift([faces()], [faces(still)]).faces == (0, 1)
