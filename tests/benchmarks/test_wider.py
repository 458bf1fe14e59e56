"""The WIDER FACE protocol against an independent, slow reading of it, and against cases worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinaface_edge.benchmarks.accuracy.run import evaluate, evaluate_files
from retinaface_edge.benchmarks.accuracy.wider_files import (
    read_ground_truth,
    read_predictions,
    read_wider,
    write_predictions,
)
from retinaface_edge.benchmarks.accuracy.wider_protocol import SETTINGS, judge_wider, wider_average_precision
from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.benchmarks.inference.measurement import Execution
from retinaface_edge.benchmarks.inference.network_under_test import networks_of
from retinaface_edge.runtime import Bundle
from retinaface_edge.runtime.ops.postprocess import Faces

Picture = tuple[list[list[float]], list[list[float]], list[bool]]
"""Predictions as x, y, width, height, score; faces as x, y, width, height; which faces are listed."""


def overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union of x, y, width, height, both border pixels counted."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]) + 1
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / ((a[2] + 1) * (a[3] + 1) + (b[2] + 1) * (b[3] + 1) - width * height)


def slow_average_precision(pictures: list[Picture]) -> float:
    """The protocol read step by step, with loops, from the description of the evaluation kit."""
    everything = [row[4] for predictions, _, _ in pictures for row in predictions]
    low, high = (min(everything), max(everything)) if everything else (0.0, 1.0)
    total = sum(sum(listed) for _, _, listed in pictures)
    at_threshold = [[0, 0] for _ in range(1000)]
    for predictions, faces, listed in pictures:
        if not faces or not predictions:
            continue
        rows = sorted(predictions, key=lambda row: -row[4])
        scores = [(row[4] - low) / (high - low) for row in rows]
        state = [0] * len(faces)
        proposal, recalled = [], []
        for row in rows:
            overlaps = [overlap(row, face) for face in faces]
            best = max(range(len(faces)), key=lambda index: overlaps[index])
            counts = 1
            if overlaps[best] >= 0.5:
                if not listed[best]:
                    state[best], counts = -1, -1
                elif state[best] == 0:
                    state[best] = 1
            proposal.append(counts)
            recalled.append(sum(value == 1 for value in state))
        for step in range(1000):
            threshold = 1 - (step + 1) / 1000
            last = -1
            for index, score in enumerate(scores):
                if score >= threshold:
                    last = index
            if last >= 0:
                at_threshold[step][0] += sum(value == 1 for value in proposal[: last + 1])
                at_threshold[step][1] += recalled[last]
    recall = [0.0, *(right / total for _, right in at_threshold), 1.0]
    precision = [0.0, *(right / proposed if proposed else 0.0 for proposed, right in at_threshold), 0.0]
    for index in range(len(precision) - 1, 0, -1):
        precision[index - 1] = max(precision[index - 1], precision[index])
    return sum((recall[i + 1] - recall[i]) * precision[i + 1] for i in range(len(recall) - 1))


def our_average_precision(pictures: list[Picture]) -> float:
    judged = []
    for predictions, faces, listed in pictures:
        rows = np.array(predictions, float).reshape(-1, 5)
        annotated = np.array(faces, float).reshape(-1, 4)
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        corners = np.concatenate([annotated[:, :2], annotated[:, :2] + annotated[:, 2:]], axis=1)
        judged.append(judge_wider(rows[:, 4], boxes, corners, np.array(listed, bool)))
    return wider_average_precision(judged)


def scene(faces: int = 5, pictures: int = 4) -> list[Picture]:
    """Perfect predictions for faces on a grid, a third of them not listed."""
    found: list[Picture] = []
    for number in range(pictures):
        boxes = [[40.0 * index, 50.0 * number, 20.0, 30.0] for index in range(faces)]
        predictions = [[*box, 0.5 + 0.4 * (number * faces + i) / (faces * pictures)] for i, box in enumerate(boxes)]
        found.append((predictions, boxes, [index % 3 != 2 for index in range(faces)]))
    return found


@st.composite
def random_pictures(draw: Any) -> list[Picture]:
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    pictures: list[Picture] = []
    for _ in range(draw(st.integers(1, 5))):
        faces = np.rint(random.uniform([0, 0, 4, 4], [60, 60, 40, 40], (random.integers(0, 8), 4)))
        copies = faces[random.integers(0, len(faces), random.integers(0, 12))] if len(faces) else np.zeros((0, 4))
        boxes = np.concatenate([copies + random.normal(0, 2, copies.shape), random.uniform(1, 50, (3, 4))])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
        scores = np.round(random.uniform(0, 1, (len(boxes), 1)), 6)
        listed = (random.random(len(faces)) < 0.7).tolist()
        pictures.append((np.concatenate([boxes, scores], axis=1).tolist(), faces.tolist(), listed))
    if not any(any(listed) for _, _, listed in pictures):
        pictures.append(([[0, 0, 10, 10, 0.25], [50, 50, 5, 5, 0.75]], [[0, 0, 10, 10]], [True]))
    return pictures


@given(random_pictures())
@settings(max_examples=60)
def test_equals_the_slow_reading_on_random_predictions(pictures: list[Picture]) -> None:
    assert our_average_precision(pictures) == pytest.approx(slow_average_precision(pictures), abs=1e-6)


def test_equals_the_slow_reading_on_real_predictions(shared: Path, bundle: Bundle, tmp_path: Path) -> None:
    dataset = read_wider(shared / "widerface")
    pictures: dict[str, Faces] = {}
    result = evaluate(
        networks_of(bundle, ["openvino int8"]),
        dataset,
        Execution(),
        scale="vga",
        each=lambda _, name, faces: pictures.__setitem__(name, faces),
    )
    for setting in SETTINGS:
        rows: list[Picture] = []
        for picture in dataset.pictures:
            faces = pictures[picture.name]
            boxes = np.concatenate([faces.boxes[:, :2], faces.boxes[:, 2:] - faces.boxes[:, :2]], axis=1)
            predictions = np.concatenate([boxes, faces.scores[:, None]], axis=1).tolist()
            annotated = np.concatenate([picture.faces[:, :2], picture.faces[:, 2:] - picture.faces[:, :2]], axis=1)
            rows.append((predictions, annotated.tolist(), picture.counted[setting].tolist()))
        assert result.results[0].ap[setting] == pytest.approx(slow_average_precision(rows), abs=1e-6)


def test_perfect_predictions_score_one_and_their_order_decides_nothing() -> None:
    pictures = scene()
    assert our_average_precision(pictures) == pytest.approx(1.0)
    shuffled = [(predictions[::-1], faces, listed) for predictions, faces, listed in pictures[::-1]]
    assert our_average_precision(shuffled) == pytest.approx(1.0)


def test_empty_and_shifted_predictions_score_nothing() -> None:
    assert our_average_precision([([], faces, listed) for _, faces, listed in scene()]) == 0.0
    shifted = [([[x + 15, y, w, h, s] for x, y, w, h, s in p], faces, listed) for p, faces, listed in scene()]
    assert our_average_precision(shifted) == 0.0


def test_by_hand() -> None:
    """Of two listed faces one is found, at precision 1; later detections are wrong, or find the second."""
    faces = [[0.0, 0.0, 20.0, 20.0], [100.0, 0.0, 20.0, 20.0]]
    found, again, invented = [0.0, 0.0, 20.0, 20.0, 0.9], [1.0, 0.0, 20.0, 20.0, 0.5], [50.0, 50.0, 9.0, 9.0, 0.1]
    assert our_average_precision([([found, again, invented], faces, [True, True])]) == pytest.approx(0.5)
    second = [100.0, 0.0, 20.0, 20.0, 0.3]  # after a wrong one: precision 2/3 at recall 1
    assert our_average_precision([([found, again, second, invented], faces, [True, True])]) == pytest.approx(
        0.5 + 0.5 * 2 / 3
    )


def test_an_unlisted_face_makes_its_detection_count_neither_way() -> None:
    faces = [[0.0, 0.0, 20.0, 20.0], [100.0, 0.0, 20.0, 20.0]]
    predictions = [[100.0, 0.0, 20.0, 20.0, 0.9], [0.0, 0.0, 20.0, 20.0, 0.5]]
    assert our_average_precision([(predictions, faces, [True, False])]) == pytest.approx(1.0)


def test_both_border_pixels_count() -> None:
    """9×9 on 4×9 sharing its place: 50 / 100 by pixels with both borders, 36 / 81 without."""
    predictions = [[0.0, 0.0, 4.0, 9.0, 0.9], [50.0, 50.0, 3.0, 3.0, 0.1]]
    assert our_average_precision([(predictions, [[0.0, 0.0, 9.0, 9.0]], [True])]) == pytest.approx(1.0)


def test_names_that_end_in_the_letters_of_the_suffix_stay_whole(tmp_path: Path) -> None:
    faces = Faces(np.array([0.75]), np.array([[1.0, 2.0, 11.5, 22.25]]), np.zeros((1, 5, 2)))
    names = ["0--Parade/0_jpg.jpg", "0--Parade/0_gp.jpg", "0--Parade/0_.jpg", "1--p/a.b.jpg"]
    for name in names:
        write_predictions(tmp_path, name, faces)
    assert {path.name for path in tmp_path.rglob("*.txt")} == {"0_jpg.txt", "0_gp.txt", "0_.txt", "a.b.txt"}
    read, absent = read_predictions(tmp_path, names)
    assert absent == []
    for name in names:
        assert np.allclose(read[name].boxes, faces.boxes) and np.allclose(read[name].scores, faces.scores)


@pytest.mark.parametrize(
    "text",
    ["", "name\n", "name\n2\n1 2 3 4 0.5\n", "name\n1\n1 2 3 x 0.5\n", "name\n1\n1 2 3 4\n", "n\n1\n1 2 3 4 nan\n"],
)
def test_a_damaged_prediction_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "event").mkdir()
    (tmp_path / "event" / "a.txt").write_text(text)
    with pytest.raises(MeasurementError, match=r"a\.txt is not a WIDER FACE prediction file"):
        read_predictions(tmp_path, ["event/a.jpg"])


def test_the_official_ground_truth_is_read_whole_and_a_partial_set_says_so(shared: Path) -> None:
    everything = read_ground_truth(shared / "widerface")
    assert len(everything) == 3226
    totals = {setting: sum(int(p.counted[setting].sum()) for p in everything) for setting in SETTINGS}
    assert totals == {"easy": 7211, "medium": 13319, "hard": 31958}
    assert read_wider(shared / "widerface").note == "100 of 3226 pictures are there"


def test_predictions_written_and_read_again_score_the_same(shared: Path, tmp_path: Path) -> None:
    dataset = read_wider(shared / "widerface")
    for picture in dataset.pictures[:-1]:  # the last has no file: it counts as having no detections
        scores = np.linspace(0.9, 0.1, len(picture.faces))
        write_predictions(tmp_path, picture.name, Faces(scores, picture.faces, np.zeros((len(scores), 5, 2))))
    result = evaluate_files(shared / "widerface", tmp_path)
    assert (result.predictions or "").startswith("1 of 100 pictures have no file")
    last = dataset.pictures[-1].counted
    for setting in SETTINGS:
        faces = result.results[0].faces[setting]
        assert result.results[0].ap[setting] == pytest.approx(1 - last[setting].sum() / faces, abs=1e-3)
