"""A gate that had nothing to judge has not passed: too few pictures or faces, unreadable ones, values that are none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from test_gate import gate, result

from retinaface_edge.benchmarks.gates.gate import Gate, junit, outcomes_of, read_gate
from retinaface_edge.benchmarks.gates.sufficiency import shortfalls
from retinaface_edge.benchmarks.report.text import gate_text
from retinaface_edge.benchmarks.results import ImageSet, SkippedImage
from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.cli.main import main
from retinaface_edge.runtime import Bundle

RULE = {"floor": "detections", "figure": "missed", "at_most": 2}


def read(tmp_path: Path, *rules: dict[str, Any], **needs: float) -> Gate:
    path = gate(tmp_path, *rules)
    path.write_text(json.dumps({**json.loads(path.read_text()), **({"needs": needs} if needs else {})}))
    return read_gate(path)


def why(read: Gate, judged: Any) -> list[str]:
    return shortfalls(read, judged, outcomes_of(read, [judged]))


def test_enough_is_enough(tmp_path: Path) -> None:
    assert why(read(tmp_path, RULE, images=4, faces=10, unreadable_share=0), result()) == []


@pytest.mark.parametrize(
    ("needs", "words"),
    [({"images": 5}, "4 pictures were measured, .* needs 5"), ({"faces": 11}, "10 faces .* needs 11")],
)
def test_too_few_pictures_or_faces_are_no_verdict(needs: dict[str, float], words: str, tmp_path: Path) -> None:
    import re

    (reason,) = why(read(tmp_path, RULE, **needs), result())
    assert re.search(words, reason)


def test_no_face_is_no_verdict_whatever_the_gate_says_of_it(tmp_path: Path) -> None:
    sound = result()
    (comparison,) = sound.comparisons
    empty = replace(comparison, detections=replace(comparison.detections, matched=0, missed=0))
    (reason,) = why(read(tmp_path, RULE), replace(sound, comparisons=(empty,)))
    assert "has 0 faces" in reason


@pytest.mark.parametrize(("unreadable", "allowed"), [(0, True), (1, False), (30, False)])
def test_a_share_of_unreadable_pictures_is_no_verdict(unreadable: int, allowed: bool, tmp_path: Path) -> None:
    skipped = tuple(SkippedImage(f"{index}.jpg", "cut short") for index in range(unreadable))
    judged = replace(result(), images=ImageSet(4, "", skipped))
    assert (why(read(tmp_path, RULE), judged) == []) is allowed
    assert why(read(tmp_path, RULE, unreadable_share=1.0), judged) == []


def test_a_rule_without_a_value_or_a_match_is_named(tmp_path: Path) -> None:
    none = {"name": "signal", "floor": "tensors", "figure": "sqnr_db", "at_least": 20}
    typo = {**RULE, "name": "typo", "artifact": "tflit int8"}
    assert why(read(tmp_path, none, RULE), result(None)) == [
        "signal: tflite int8 against onnxruntime fp32 has no value to judge"
    ]
    assert why(read(tmp_path, typo, RULE), result()) == ["typo: its patterns match nothing that was measured"]
    assert why(read(tmp_path, {**typo, "optional": True}, RULE), result()) == []


def test_what_was_not_judged_is_said_and_fails_in_junit(tmp_path: Path) -> None:
    read_ = read(tmp_path, RULE, images=5)
    outcomes = outcomes_of(read_, [result()])
    lacking = why(read_, result())
    text = gate_text(outcomes, lacking)
    assert "NOT JUDGED 4 pictures" in text
    assert "this gate has not passed" in text
    root = ElementTree.fromstring(junit(outcomes, "drift", lacking))
    assert (root.get("tests"), root.get("failures")) == ("2", "1")
    assert "has not passed" not in gate_text(outcomes, [])


@pytest.mark.parametrize("needs", [{"images": -1}, {"unreadable_share": 1.5}, {"pictures": 3}])
def test_needs_that_make_no_sense_are_refused(needs: dict[str, float], tmp_path: Path) -> None:
    from retinaface_edge.benchmarks.errors import MeasurementError

    with pytest.raises(MeasurementError, match="needs"):
        read(tmp_path, RULE, **needs)


def test_grey_and_unreadable_pictures_exit_with_1(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(portrait()[:, :, ::-1]).save(photos / "a.png")
    for index in range(30):
        (photos / f"{index}.png").write_bytes(b"\x89PNG cut short")
    command = ["drift", str(bundle.path), "--images", str(photos), "--no-cache", "--artifact", "tflite int8"]
    assert main(command) == 1
    said = capsys.readouterr().out
    assert "NOT JUDGED 30 of 31 pictures cannot be read" in said
    for path in photos.iterdir():
        Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(path)
    assert main([*command, "--limit", "6"]) == 1
    assert "the reference has 0 faces" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["drift", "eval", "bench"])
def test_a_wrong_gate_is_found_before_anything_is_measured(
    verb: str, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object, **__: object) -> None:
        pytest.fail("it was measured first")

    for name in ("drift.run.drift", "accuracy.run.evaluate", "latency.run.bench"):
        monkeypatch.setattr(f"retinaface_edge.benchmarks.{name}", measured)
    path = gate(tmp_path, {"floor": "detections", "figure": "mised", "at_most": 2})
    (tmp_path / "boxes.json").write_text("[]")
    sets = {"drift": ["--images", "none"], "eval": ["--boxes", str(tmp_path / "none.json")], "bench": []}
    assert main([verb, str(bundle.path), *sets[verb], "--gate", str(path)]) == 2
    assert "there is no figure 'mised'" in capsys.readouterr().err
