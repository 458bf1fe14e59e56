"""Faces as dictionaries, tables and HTML, and a detector that says what it is."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.runtime import BackendError, Bundle, Detector, Faces, ImageError, aligned

FACES = Faces(
    np.array([0.9, 0.8]),
    np.array([[-3.0, 5.0, 40.0, 60.0], [10.0, 20.0, 130.0, 140.0]]),
    np.arange(20.0).reshape(2, 5, 2),
)


def test_a_dictionary_has_plain_numbers_and_the_same_values() -> None:
    records = json.loads(json.dumps(FACES.to_dict()))
    for record, face in zip(records, FACES, strict=True):
        assert (record["score"], tuple(record["box"])) == (face.score, face.box)
        assert tuple(map(tuple, record["landmarks"])) == face.landmarks
        assert "vertices" not in record


def test_boxes_are_clipped_and_landmarks_are_not() -> None:
    clipped = FACES.clipped(100, 50)
    assert clipped.boxes.tolist() == [[0, 5, 40, 50], [10, 20, 100, 50]]
    np.testing.assert_array_equal(clipped.landmarks, FACES.landmarks)


def test_a_table_has_a_column_for_each_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """pandas need not be installed here: its one call is stood in for."""
    made = SimpleNamespace(DataFrame=lambda values, columns: (values, columns))
    monkeypatch.setitem(sys.modules, "pandas", made)  # type: ignore[arg-type]
    values, columns = FACES.to_dataframe()  # type: ignore[misc]
    assert columns[:7] == ["score", "x1", "y1", "x2", "y2", "landmark_1_x", "landmark_1_y"]
    assert values.shape == (2, len(columns)) and values[1, 7] == FACES.landmarks[1, 1, 0]


def test_a_frame_without_faces_has_an_empty_table() -> None:
    for landmarks in (0, 5):
        none = Faces(np.zeros(0), np.zeros((0, 4)), np.zeros((0, landmarks, 2)))
        assert none.table().shape == (0, 5 + 2 * landmarks) and none.to_dict() == []
        assert "0 faces" in none._repr_html_()


def test_a_notebook_shows_every_face() -> None:
    shown = FACES._repr_html_()
    assert "2 faces" in shown and shown.count("<tr>") == 3 and "0.900" in shown


def test_a_detector_says_its_backend_and_precision(bundle: Bundle) -> None:
    with Detector.load(bundle, "onnxruntime", "fp32") as detector:
        assert repr(detector) == "<Detector onnxruntime fp32, input 640x480>"
    assert repr(detector).endswith("closed>")


def test_a_crop_is_the_same_from_a_face_and_from_its_landmarks(bundle: Bundle) -> None:
    (face,) = Detector.load(bundle, "openvino", "int8").detect(portrait())
    crop = aligned(portrait(), face)
    np.testing.assert_array_equal(aligned(portrait(), face.landmarks), crop)
    np.testing.assert_array_equal(aligned(portrait(), np.array(face.landmarks)), crop)
    with pytest.raises(ImageError, match="a face or its landmarks"):
        aligned(portrait(), "nonsense")


def test_faces_are_detections_of_supervision() -> None:
    supervision = pytest.importorskip("supervision")
    ids = np.array([7, 3])
    detections = FACES.to_supervision(ids)
    assert isinstance(detections, supervision.Detections) and len(detections) == 2
    np.testing.assert_allclose(detections.xyxy, FACES.boxes, rtol=1e-6)
    np.testing.assert_allclose(detections.confidence, FACES.scores, rtol=1e-6)
    assert detections.tracker_id.tolist() == ids.tolist()
    second = detections[detections.tracker_id == 3]  # it slices what it was given
    np.testing.assert_array_equal(second.data["landmarks"], FACES.landmarks[1:])
    assert second.data["class_name"].tolist() == ["face"]
    scene = np.zeros((480, 640, 3), np.uint8)
    assert supervision.BoxAnnotator().annotate(scene.copy(), detections).any()
    merged = supervision.Detections.merge([detections, FACES.to_supervision(ids)])
    assert len(merged) == 4
    assert len(Faces(np.zeros(0), np.zeros((0, 4)), np.zeros((0, 5, 2))).to_supervision()) == 0


def test_supervision_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(BackendError, match="pip install supervision"):
        FACES.to_supervision()
