"""Gates are data: what they demand, how they are refused, and the JUnit report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from retinaface_edge.benchmarks.gates.gate import apply_gate, failures, junit, read_gate
from retinaface_edge.benchmarks.inference.network_under_test import MeasurementError


def result(sqnr: float | None = 25.0, ap: float = 0.9) -> dict[str, Any]:
    """An eval result of two artifacts and a drift result's shape for one output, as the gate sees them."""
    missed = [
        {"image": "b.jpg", "score": 0.85, "size": 50.0, "box": [0, 0, 1, 1], "faint": True},
        {"image": "a.jpg", "score": 0.95, "size": 20.0, "box": [0, 0, 1, 1], "faint": False},
    ]
    detections = dict.fromkeys(
        ("ap_0.02", "ap_0.5", "iou_mean", "iou_p05", "score_shift_absolute", "score_shift_largest"), ap
    )
    tensor = {
        "output": "score_8", "anchors": "candidates", "sqnr_db": sqnr, "cosine": 1.0, "gain": 1.0,
        "largest_difference": 0.1, "worst_image": "c.jpg",
    }  # fmt: skip
    return {
        "kind": "drift",
        "comparisons": [
            {
                "reference": "onnxruntime fp32",
                "artifact": "tflite int8",
                "tensors": [tensor],
                "detections": {**detections, "landmark_shift_mean": 0.01, "landmark_shift_p95": 0.02},
                "missed": missed,
                "invented": [],
                "per_image": [{"image": "d.jpg", "iou_mean": 0.9, "landmark_shift_mean": 0.01}],
            }
        ],
    }


def gate(tmp_path: Path, *rules: dict[str, Any]) -> Path:
    path = tmp_path / "gate.json"
    path.write_text(json.dumps({"format_version": 1, "rules": rules}))
    return path


def test_the_default_gate_is_installed_and_names_every_rule() -> None:
    rules = read_gate(None)
    assert len({rule.name for rule in rules}) == len(rules)
    assert {rule.floor for rule in rules} == {"tensors", "detections", "layers", "eval"}


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
    rows = [
        {"artifact": name, "ap": {"easy": ap}, "recall": 0.5, "landmarks": None, "worst_image": "w.jpg"}
        for name, ap in (("onnxruntime fp32", 0.9), ("openvino int8", 0.896), ("tflite int8", 0.894))
    ]
    found = {"kind": "eval", "reference": "onnxruntime fp32", "results": rows}
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
        ({"floor": "tensor", "figure": "sqnr_db", "at_least": 1}, "floor 'tensor'"),
        ({"floor": "tensors", "figure": "snr", "at_least": 1}, "figure 'snr'"),
        ({"floor": "tensors", "figure": "sqnr_db"}, "demands nothing"),
        ({"floor": "tensors", "figure": "sqnr_db", "at_least": "20"}, "not a number"),
        ({"floor": "tensors", "figure": "sqnr_db", "at_least": True}, "not a number"),
        ({"floor": "tensors", "figure": "sqnr_db", "at_leest": 20}, "at_leest"),
        ({"floor": "tensors", "figure": "sqnr_db", "at_least": 20, "least_size": 4}, "only missed and invented"),
        ({"floor": "tensors", "figure": "sqnr_db", "at_least": 20, "of": 8}, "not text"),
        ("rule", "not an object"),
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
    with pytest.raises(MeasurementError, match="no rule of the gate speaks of anything"):
        apply_gate(read_gate(path), result())
