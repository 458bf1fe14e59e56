"""Drift as a measurement: its figures, its order, its cache, its workers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retinaface_edge.benchmarks.drift.detection_metrics import DetectionTotals, compare_faces
from retinaface_edge.benchmarks.drift.result import Comparison, DriftResult
from retinaface_edge.benchmarks.drift.run import drift, pairs_of
from retinaface_edge.benchmarks.drift.tensor_metrics import HIGHEST_SQNR_DB, TensorTotals, output_sums, sqnr_db
from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.benchmarks.inference import measurement as measure_module
from retinaface_edge.benchmarks.inference.faces import FacesFound
from retinaface_edge.benchmarks.inference.measurement import (
    Execution,
    Measured,
    Quantity,
    Task,
    Unreadable,
    measure_pictures,
    read_set,
)
from retinaface_edge.benchmarks.inference.network_under_test import NetworkUnderTest, networks_of
from retinaface_edge.benchmarks.inference.result_cache import ResultCache
from retinaface_edge.calibration.dataset.synthetic_scenes import scenes
from retinaface_edge.runtime import Bundle, Spec
from retinaface_edge.runtime.ops.postprocess import Faces
from retinaface_edge.runtime.spec import ScoreCoding

PICTURES = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    for index, frame in enumerate(scenes(PICTURES, seed=11)):
        Image.fromarray(frame[:, :, ::-1]).save(path / f"{index}.png")
    return path


@pytest.fixture(scope="module")
def networks(bundle: Bundle) -> list[NetworkUnderTest]:
    return networks_of(bundle)


@pytest.fixture(scope="module")
def result(networks: list[NetworkUnderTest], folder: Path) -> DriftResult:
    return drift(networks, read_set(folder), Execution())


def comparison(result: DriftResult, artifact: str, reference: str = "onnxruntime fp32") -> Comparison:
    (found,) = [c for c in result.comparisons if (c.artifact, c.reference) == (artifact, reference)]
    return found


def faces(*rows: tuple[float, float, float, float, float]) -> Faces:
    """Rows of score and box; landmarks at the box's corner."""
    array = np.array(rows, float).reshape(-1, 5)
    return Faces(array[:, 0], array[:, 1:], np.repeat(array[:, None, 1:3], 5, axis=1))


def test_fp32_artifacts_give_the_same_faces(shared: Path, bundle: Bundle) -> None:
    networks = networks_of(bundle, ["* fp32"])
    found = drift(networks, read_set(shared / "widerface" / "WIDER_val", 40), Execution())
    for name in ("openvino fp32", "tflite fp32"):
        ap = comparison(found, name).detections.ap["0.02"]
        assert ap is not None and ap >= 0.999


def test_every_output_has_figures_of_its_own(result: DriftResult, bundle: Bundle) -> None:
    for row in result.comparisons:
        assert [t.output for t in row.tensors if t.anchors == "candidates"] == [o.name for o in bundle.spec.outputs]
    worst = {t.output: t.sqnr_db for t in comparison(result, "tflite int8").tensors if t.anchors == "all"}
    assert len({round(value, 6) for value in worst.values() if value is not None}) == len(worst)


def test_int8_is_compared_with_fp32_and_with_the_quantised_onnx(result: DriftResult) -> None:
    pairs = {(c.reference, c.artifact) for c in result.comparisons}
    assert ("onnxruntime fp32", "tflite int8") in pairs and ("onnxruntime int8", "tflite int8") in pairs


def test_what_is_no_artifact_is_compared_with_every_other(networks: list[NetworkUnderTest]) -> None:
    elsewhere = replace(networks[0], name="checkpoint fp32", digest="0", artifact=None)
    pairs = {(pair.reference.name, pair.artifact.name) for pair in pairs_of([*networks, elsewhere])}
    assert {artifact for reference, artifact in pairs if reference == "checkpoint fp32"} == {
        network.name for network in networks if network.name != "onnxruntime fp32"
    }
    assert ("onnxruntime fp32", "checkpoint fp32") in pairs


def test_every_pair_is_every_pair(networks: list[NetworkUnderTest]) -> None:
    assert len(pairs_of(networks, every=True)) == len(networks) * (len(networks) - 1) // 2
    with pytest.raises(MeasurementError, match="onnxruntime fp32, which the others are compared with"):
        pairs_of([network for network in networks if network.artifact and network.artifact.precision == "int8"])


def test_counts_agree_with_each_other(result: DriftResult) -> None:
    for row in result.comparisons:
        found = row.detections
        assert found.missed == len(row.missed) and found.invented == len(row.invented)
        for bands in (found.by_size, found.by_score):
            assert sum(band.matched for band in bands) == found.matched
            assert sum(band.missed for band in bands) == found.missed


def test_two_processes_give_the_same_result_to_the_last_bit(
    networks: list[NetworkUnderTest], folder: Path, result: DriftResult
) -> None:
    assert drift(networks, read_set(folder), Execution(workers=2)) == result


def test_an_interrupted_run_goes_on_where_it_stopped(
    networks: list[NetworkUnderTest], folder: Path, result: DriftResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real = measure_module.measure

    def counted(quantities: Sequence[Quantity[Any]], task: Task) -> Measured | Unreadable:
        done.append(task.picture.name)
        return real(quantities, task)

    monkeypatch.setattr(measure_module, "measure", counted)

    def stopping(items: Any, total: int) -> Any:
        assert total == PICTURES
        for number, item in enumerate(items):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    with ResultCache(tmp_path) as cache, pytest.raises(KeyboardInterrupt):
        drift(networks, read_set(folder), Execution(cache, progress=stopping))
    before = len(done)
    with ResultCache(tmp_path) as cache:
        assert drift(networks, read_set(folder), Execution(cache)) == result
    assert 0 < before < PICTURES and sorted(done) == sorted(set(done))


def test_another_artifact_is_measured_anew_and_the_others_are_not(
    networks: list[NetworkUnderTest], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(chosen: list[NetworkUnderTest]) -> list[tuple[int, ...]]:
        tasks: list[tuple[int, ...]] = []
        real = measure_module.measure

        def noting(quantities: Sequence[Quantity[Any]], task: Task) -> Measured | Unreadable:
            tasks.append(task.wanted)
            return real(quantities, task)

        with ResultCache(tmp_path) as cache, monkeypatch.context() as patch:
            patch.setattr(measure_module, "measure", noting)
            faces = [FacesFound(network) for network in chosen]
            for outcome in measure_pictures(faces, read_set(folder), Execution(cache)):
                assert isinstance(outcome, Measured) and len(outcome.arrays) == len(chosen)
        return tasks

    assert measured(networks[:2]) == [(0, 1)] * PICTURES
    assert measured(networks[:3]) == [(2,)] * PICTURES
    assert measured(networks[:3]) == []


def test_unreadable_pictures_are_named_and_passed_over(
    networks: list[NetworkUnderTest], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    good = next(iter(read_set(folder).values()))
    files = {"a-torn.jpg": tmp_path / "torn.jpg", "b-gone.jpg": tmp_path / "gone.jpg", "c.png": good}
    two = [network for network in networks if network.name in ("onnxruntime fp32", "tflite int8")]
    for execution in (Execution(), Execution(workers=2)):
        outcomes = list(measure_pictures([FacesFound(two[0])], files, execution))
        assert [type(one) for one in outcomes] == [Unreadable, Unreadable, Measured]
    found = drift(two, files, Execution())
    assert [skipped.name for skipped in found.images.skipped] == ["a-torn.jpg", "b-gone.jpg"]
    del files["c.png"]
    with pytest.raises(MeasurementError, match="none of 2 pictures can be read"):
        drift(two, files, Execution())


def test_a_picture_that_is_known_and_one_that_is_not_come_in_their_order(
    networks: list[NetworkUnderTest], folder: Path, tmp_path: Path
) -> None:
    files, faces = read_set(folder), [FacesFound(networks[0])]
    second = list(files)[1]
    with ResultCache(tmp_path) as cache:
        (first,) = measure_pictures(faces, {second: files[second]}, Execution(cache))
        outcomes = list(measure_pictures(faces, files, Execution(cache, workers=2)))
    assert [outcome.name for outcome in outcomes] == list(files)
    for outcome in (first, *outcomes):
        assert isinstance(outcome, Measured) and outcome.size == (640, 480)
    assert isinstance(first, Measured) and isinstance(outcomes[1], Measured)
    np.testing.assert_array_equal(first.value(faces[0]).boxes, outcomes[1].value(faces[0]).boxes)


def test_faces_are_matched_missed_and_invented() -> None:
    reference = faces((0.9, 0, 0, 100, 100), (0.8, 200, 0, 250, 50), (0.3, 300, 300, 320, 320))
    artifact = faces((0.7, 0, 0, 100, 90), (0.4, 200, 0, 250, 50), (0.6, 300, 300, 320, 320), (0.55, 400, 0, 440, 30))
    found = compare_faces("a.png", reference, artifact, 2.0, 0.5)
    assert found.matched.shape == (1, 5)
    assert found.matched[0] == pytest.approx([0.9, 50.0, 0.9, -0.2, 0.0])
    assert [(f.score, f.size_px, f.below_threshold) for f in found.missed] == [(0.8, 25.0, True)]
    assert [(f.score, f.size_px, f.below_threshold) for f in found.invented] == [(0.6, 10.0, True), (0.55, 15.0, False)]


def test_detectors_without_landmarks_have_no_landmark_shift() -> None:
    reference, artifact = (faces((0.9, 0, 0, 100, side)) for side in (100, 90))
    expected, found = (Faces(side.scores, side.boxes, np.zeros((1, 0, 2))) for side in (reference, artifact))
    totals = DetectionTotals()
    totals.add(compare_faces("a.png", expected, found, 1.0, 0.5))
    summary = totals.summary()
    assert summary.landmark_shift_mean_share is None and summary.landmark_shift_p95_share is None
    assert summary.iou_mean == pytest.approx(0.9) and totals.per_image()[0].landmark_shift_mean_share is None


@given(st.integers(0, 2**32 - 1))
def test_candidates_are_anchors_with_a_score_by_the_detectors_own_coding(seed: int) -> None:
    spec = Spec(64, 64, score=ScoreCoding.FACE_OBJECT)
    random = np.random.default_rng(seed)
    reference = [random.normal(-3, 2, output.shape) for output in spec.outputs]
    counts = output_sums(spec, reference, reference)[:, 1, 0]
    values = {output.name: array.ravel() for output, array in zip(spec.outputs, reference, strict=True)}
    for output, count in zip(spec.outputs, counts, strict=True):
        face, thing = (1 / (1 + np.exp(-values[f"{head}_{output.stride}"])) for head in ("score", "object"))
        channels = next(head.channels for head in spec.heads if head.name == output.head)
        assert count == channels * np.sum(np.sqrt(face * thing) >= 0.02)


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 2.0))
def test_gain_and_sqnr_of_a_stretched_output(seed: int, factor: float) -> None:
    spec = Spec(64, 64)
    random = np.random.default_rng(seed)
    reference = [random.normal(0, 3, output.shape) for output in spec.outputs]
    floor = TensorTotals(spec)
    floor.add("a", output_sums(spec, reference, [array * factor for array in reference]))
    for figure in floor.figures():
        if figure.count:
            assert figure.gain == pytest.approx(factor)
            expected = sqnr_db(1.0, (factor - 1.0) ** 2)
            assert figure.sqnr_db == pytest.approx(expected, abs=1e-6)
            assert figure.cosine == pytest.approx(1.0)


def test_equal_tensors_have_the_highest_sqnr_and_sums_do_not_depend_on_how_pictures_are_grouped() -> None:
    assert sqnr_db(1.0, 0.0) == HIGHEST_SQNR_DB and sqnr_db(0.0, 1.0) == -HIGHEST_SQNR_DB
    assert sqnr_db(100.0, 1.0) == pytest.approx(20.0)


def test_drift_answers_in_one_command(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "retinaface_edge", "drift", str(bundle.path), "--images", str(folder)]
    command += [
        "--no-cache",
        "--json",
        str(tmp_path / "drift.json"),
        "--junit",
        str(tmp_path / "junit.xml"),
        "--layers",
    ]
    good = subprocess.run(command, capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stdout + good.stderr
    assert json.loads((tmp_path / "drift.json").read_text())["kind"] == "drift"
    gate = {"format_version": 1, "rules": [{"floor": "tensors", "figure": "sqnr_db", "at_least": 140}]}
    (tmp_path / "gate.json").write_text(json.dumps(gate))
    bad = subprocess.run([*command, "--gate", str(tmp_path / "gate.json")], capture_output=True, text=True, check=False)
    assert bad.returncode == 1 and "FAILED" in bad.stdout and "worst image: " in bad.stdout
    wrong = subprocess.run(
        [*command[:5], "--images", str(tmp_path / "none")], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2 and len(wrong.stderr.strip().splitlines()) == 1
