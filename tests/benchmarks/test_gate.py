"""Gates are data: what they demand, how they are refused, and the JUnit report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from jsonschema import Draft202012Validator

from retinaface_edge.benchmarks.accuracy.result import Accuracy, DatasetRecord, EvalResult
from retinaface_edge.benchmarks.drift.result import (
    Comparison,
    DetectionDrift,
    DriftedImage,
    DriftResult,
    LayerComparison,
    LayerDrift,
    LostFace,
    TensorDrift,
)
from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.benchmarks.gates import gate as gate_module
from retinaface_edge.benchmarks.gates.figures import Floor
from retinaface_edge.benchmarks.gates.gate import Rule, apply_gate, failures, junit, read_gate
from retinaface_edge.benchmarks.results import ImageSet
from retinaface_edge.runtime.host.targets import BUDGET_FILE, TARGET_FILE
from retinaface_edge.schemas import read_schema


def result(sqnr: float | None = 25.0, ap: float = 0.9) -> DriftResult:
    """A drift result of one artifact with one output."""
    missed = (
        LostFace(image="b.jpg", score=0.85, size_px=50.0, box=(0, 0, 1, 1), below_threshold=True),
        LostFace(image="a.jpg", score=0.95, size_px=20.0, box=(0, 0, 1, 1), below_threshold=False),
    )
    tensor = TensorDrift(
        output="score_8", head="score", stride=8, anchors="candidates", count=10, sqnr_db=sqnr, cosine=1.0, gain=1.0,
        largest_difference=0.1, worst_image="c.jpg", worst_sqnr_db=sqnr,
    )  # fmt: skip
    detections = DetectionDrift(
        ap={"0.02": ap, "0.5": ap}, matched=8, missed=2, missed_below_threshold=1, invented=0,
        invented_below_threshold=0, iou_mean=ap, iou_p05=ap, iou_least=ap, score_shift_mean=ap,
        score_shift_absolute_mean=ap, score_shift_absolute_largest=ap, landmark_shift_mean_share=0.01,
        landmark_shift_p95_share=0.02, by_size=(), by_score=(),
    )  # fmt: skip
    image = DriftedImage("d.jpg", (), {}, matched=1, iou_mean=0.9, landmark_shift_mean_share=0.01)
    comparison = Comparison("onnxruntime fp32", "tflite int8", (tensor,), detections, missed, (), (image,))
    return DriftResult("drift", 2, {}, (), (640, 480), 0.5, ImageSet(4, ""), (comparison,), ())


def accuracy(artifact: str, ap: float) -> Accuracy:
    return Accuracy(artifact, {"easy": ap}, {"easy": 10}, 0.5, (), None, {}, "w.jpg", ())


def gate(tmp_path: Path, *rules: dict[str, Any]) -> Path:
    path = tmp_path / "gate.json"
    path.write_text(json.dumps({"format_version": 1, "rules": rules}))
    return path


def test_the_default_gate_is_installed_and_names_every_rule() -> None:
    rules = read_gate(None).rules
    assert len({rule.name for rule in rules}) == len(rules)
    assert {rule.floor.value for rule in rules} == {"tensors", "detections", "layers", "eval", "identity"}


@pytest.mark.parametrize(("sqnr", "passed"), [(20.0, True), (19.99, False), (None, None)])
def test_no_output_below_20_db(tmp_path: Path, sqnr: float | None, passed: bool | None) -> None:
    path = gate(
        tmp_path,
        {"floor": "tensors", "figure": "sqnr_db", "at_least": 20},
        {"floor": "detections", "figure": "ap_0.5", "at_least": 0.5},
    )
    outcome = apply_gate(read_gate(path), result(sqnr))[0]
    assert outcome.passed is passed
    if passed is False:
        assert outcome.sentence == (
            "tflite int8 against onnxruntime fp32, tensors, score_8: sqnr_db is 19.99, wanted at least 20; "
            "worst image: c.jpg"
        )


@pytest.mark.parametrize(("size", "score", "lost"), [(40, 0.8, "b.jpg"), (40, 0.9, ""), (0, 0.9, "a.jpg"), (60, 0, "")])
def test_no_plain_face_lost(tmp_path: Path, size: float, score: float, lost: str) -> None:
    rule = {"floor": "detections", "figure": "missed", "least_size": size, "least_score": score, "at_most": 0}
    (outcome,) = apply_gate(read_gate(gate(tmp_path, rule)), result())
    assert outcome.passed is not lost.endswith("jpg")
    assert outcome.figure is not None and outcome.figure.worst_image == lost


def test_an_accuracy_gate_counts_points_lost_to_the_reference(tmp_path: Path) -> None:
    rows = (accuracy("onnxruntime fp32", 0.9), accuracy("openvino int8", 0.896), accuracy("tflite int8", 0.894))
    dataset = DatasetRecord("faces", "voc", "", None)
    found = EvalResult("eval", 2, {}, (), "onnxruntime fp32", dataset, "vga", None, 0.02, ImageSet(4, ""), rows)
    rule = {"floor": "eval", "figure": "ap_drop_points", "at_most": 0.5}
    (failed,) = failures(apply_gate(read_gate(gate(tmp_path, rule)), found))
    assert failed.sentence.startswith("tflite int8 against onnxruntime fp32, eval, easy: ap_drop_points is 0.6,")


def test_junit_names_what_failed_and_skips_what_had_no_value(tmp_path: Path) -> None:
    rules = read_gate(
        gate(
            tmp_path,
            {"name": "signal", "floor": "tensors", "figure": "sqnr_db", "at_least": 20},
            {"name": "gone", "floor": "tensors", "figure": "gain", "artifact": "nobody*", "at_least": 0},
            {"name": "faces", "floor": "detections", "figure": "ap_0.5", "at_least": 0.95},
        )
    )
    root = ElementTree.fromstring(junit(apply_gate(rules, result(None)), "drift"))
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("3", "1", "2")
    (failure,) = root.iter("failure")
    assert "tflite int8" in str(failure.get("message")) and "b.jpg" not in str(failure.get("message"))
    assert "worst image: a.jpg" in str(failure.get("message"))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"floor": "tensor", "figure": "sqnr_db", "at_least": 1}, r"rules\[0\].floor should be one of 'tensors'"),
        (
            {"floor": "tensors", "figure": "snr", "at_least": 1},
            "there is no figure 'snr'; the floor tensors has: sqnr_db",
        ),
        ({"floor": "tensors", "figure": "sqnr_db"}, "demands nothing"),
        ({"floor": "tensors", "figure": "sqnr_db", "at_least": "20"}, r"rules\[0\].at_least should be a number"),
        ({"floor": "tensors", "figure": "sqnr_db", "at_least": True}, r"rules\[0\].at_least should be a number"),
        ({"floor": "tensors", "figure": "sqnr_db", "at_leest": 20}, r"there is no field rules\[0\].at_leest"),
        (
            {"floor": "tensors", "figure": "sqnr_db", "at_least": 20, "least_size": 4},
            "are for missed and invented only",
        ),
        ({"floor": "tensors", "figure": "sqnr_db", "at_least": 20, "of": 8}, r"rules\[0\].of should be text, not 8"),
        ("rule", r"rules\[0\] should be an object"),
    ],
)
def test_a_wrong_rule_is_named(tmp_path: Path, rule: Any, message: str) -> None:
    with pytest.raises(MeasurementError, match=message):
        read_gate(gate(tmp_path, rule))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format_version": 2, "rules": [1]}', '{"format_version": 1, "rules": []}']
)
def test_a_file_that_is_no_gate_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "gate.json").write_text(text)
    with pytest.raises(MeasurementError, match=r"gate\.json is no"):
        read_gate(tmp_path / "gate.json")


def test_a_gate_that_finds_nothing_to_judge_is_refused(tmp_path: Path) -> None:
    path = gate(tmp_path, {"floor": "tensors", "figure": "sqnr_db", "artifact": "tflight*", "at_least": 1})
    with pytest.raises(MeasurementError, match="no rule of the gate applies to anything"):
        apply_gate(read_gate(path), result())


def test_a_rule_made_in_python_is_checked_as_one_from_a_file() -> None:
    with pytest.raises(ValueError, match="there is no figure 'snr'"):
        Rule(Floor.TENSORS, "snr", at_least=1)
    with pytest.raises(ValueError, match="demands nothing"):
        Rule(Floor.TENSORS, "sqnr_db")


def test_layers_may_be_named_as_in_the_last_version(tmp_path: Path) -> None:
    old = {"floor": "layers", "figure": "born_sqnr_db", "at_least": 60}
    new = {"floor": "layers", "figure": "introduced_sqnr_db", "at_least": 60}
    layer = LayerDrift("conv1", "Conv", (), introduced_sqnr_db=59.0, accumulated_sqnr_db=61.0)
    layers = LayerComparison("onnxruntime fp32", "tflite fp32", 4, "conv1", (layer,))
    drifted = replace(result(), layers=(layers,))
    first, second = (apply_gate(read_gate(gate(tmp_path, rule)), drifted) for rule in (old, new))
    assert first == second
    assert [outcome.passed for outcome in first] == [False]


@pytest.mark.parametrize("file", sorted(Path(gate_module.__file__).parent.glob("*_gate.json")))
def test_the_shipped_gates_follow_their_schema(file: Path) -> None:
    content = json.loads(file.read_text())
    validator = Draft202012Validator(read_schema("settings/gate"))
    validator.validate(content)
    content["rules"][0]["figur"] = "sqnr_db"
    assert not validator.is_valid(content)


def test_the_budgets_follow_their_schema() -> None:
    validator = Draft202012Validator(read_schema("settings/budget"))
    for name, fields in json.loads(BUDGET_FILE.read_text()).items():
        validator.validate({"name": name, **fields})
        assert not validator.is_valid({"name": name, **fields, "miliseconds": 1})


def test_the_targets_follow_their_schema() -> None:
    validator = Draft202012Validator(read_schema("settings/target"))
    for name, fields in json.loads(TARGET_FILE.read_text()).items():
        validator.validate({"name": name, **fields})
        assert not validator.is_valid({"name": name, **fields, "backend": "tflite"})
