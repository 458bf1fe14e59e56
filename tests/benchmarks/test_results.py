"""Result files: written and read back as they were, obeying their schema, refused by the name of what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from jsonschema import Draft202012Validator

from retinaface_edge.benchmarks.accuracy.result import CompareResult, EvalResult
from retinaface_edge.benchmarks.drift.result import DriftResult
from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.benchmarks.latency.result import BenchResult
from retinaface_edge.benchmarks.results import FORMAT_VERSION, kind_of, network_named, read_result, write_result
from retinaface_edge.runtime.artifact import ArtifactId, Backend, Precision
from retinaface_edge.schemas import read_schema

OLD = ROOT / "tests" / "fixtures" / "results_v1"
"""Written by the last version's commands, cut down to a few entries of each list."""
OLD_TYPES: dict[str, type[object]] = {
    "drift": DriftResult,
    "eval": EvalResult,
    "compare": CompareResult,
    "bench": BenchResult,
}


def old_content(kind: str) -> dict[str, Any]:
    return dict(json.loads((OLD / f"{kind}.json").read_text()))


@pytest.mark.parametrize("kind", OLD_TYPES)
def test_a_result_of_the_last_version_is_read_and_written_in_this_ones_form(kind: str, tmp_path: Path) -> None:
    result = OLD_TYPES[kind]
    assert kind_of(result) == kind
    old = read_result(OLD / f"{kind}.json", result)
    write_result(tmp_path / "new.json", old)
    content = json.loads((tmp_path / "new.json").read_text())
    assert content["format_version"] == FORMAT_VERSION
    assert read_result(tmp_path / "new.json", result) == old
    Draft202012Validator(read_schema(f"results/{kind}")).validate(content)
    assert not Draft202012Validator(read_schema(f"results/{kind}")).is_valid(old_content(kind))


def test_the_figures_of_an_old_drift_are_where_they_belong() -> None:
    old, new = old_content("drift"), read_result(OLD / "drift.json", DriftResult)
    assert new.input_px == (640, 480)
    network = network_named(new.networks, "tflite int8")
    assert network is not None and network.artifact == ArtifactId(Backend.TFLITE, Precision.INT8)
    for row, comparison in zip(old["comparisons"], new.comparisons, strict=True):
        detections = row["detections"]
        assert comparison.detections.ap == {"0.02": detections["ap_0.02"], "0.5": detections["ap_0.5"]}
        assert comparison.detections.landmark_shift_p95_share == detections["landmark_shift_p95"]
        assert comparison.detections.by_size[-1].from_px == 128.0 and comparison.detections.by_size[-1].to_px is None
        assert [image.landmark_shift_mean_share for image in comparison.per_image] == [
            image["landmark_shift_mean"] for image in row["per_image"]
        ]
    for layers, compared in zip(old["layers"], new.layers, strict=True):
        assert compared.introduced_most_in == layers["born_in"]
        assert [(row["born_sqnr_db"], row["sqnr_db"]) for row in layers["layers"]] == [
            (layer.introduced_sqnr_db, layer.accumulated_sqnr_db) for layer in compared.layers
        ]
    assert [mesh.worst_percent_of_size for mesh in new.meshes] == [mesh["worst_percent"] for mesh in old["meshes"]]
    assert [face.percent_of_size for mesh in new.meshes for face in mesh.shown] == [
        face["percent"] for mesh in old["meshes"] for face in mesh.get("shown", ())
    ]


def test_faces_that_only_one_side_has_keep_their_figures() -> None:
    old, new = old_content("drift_crowd"), read_result(OLD / "drift_crowd.json", DriftResult)
    (face,), (row,) = new.comparisons[0].invented, old["comparisons"][0]["invented"]
    assert (face.size_px, face.below_threshold, list(face.box)) == (row["size"], row["faint"], row["box"])
    assert new.layers == () and new.meshes == (), "they were not measured"
    assert [worst.visible_difference for worst in new.worst_images] == [w["badness"] for w in old["worst_images"]]


def test_what_is_no_artifact_of_a_bundle_has_a_name_and_no_artifact(tmp_path: Path) -> None:
    content = old_content("drift")
    content["artifacts"].append(
        {"name": "checkpoint fp32", "backend": "torch", "precision": "fp32", "bytes": 1, "digest": "0"}
    )
    (tmp_path / "drift.json").write_text(json.dumps(content))
    network = network_named(read_result(tmp_path / "drift.json", DriftResult).networks, "checkpoint fp32")
    assert network is not None and network.artifact is None and network.size_bytes == 1


@pytest.mark.parametrize("kind", ["drift", "eval", "compare", "bench"])
def test_every_missing_or_unknown_field_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    result = OLD_TYPES[kind]
    write_result(tmp_path / "good.json", read_result(OLD / f"{kind}.json", result))
    good = json.loads((tmp_path / "good.json").read_text())
    bad = tmp_path / "bad.json"
    required = read_schema(f"results/{kind}")["$defs"][result.__name__]["required"]
    for name in set(required) - {"kind", "format_version"}:
        bad.write_text(json.dumps({key: value for key, value in good.items() if key != name}))
        with pytest.raises(MeasurementError, match=f"the field {name} is missing"):
            read_result(bad, result)
    bad.write_text(json.dumps({**good, "surprise": 1}))
    with pytest.raises(MeasurementError, match="there is no field surprise"):
        read_result(bad, result)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("comparisons", 1, "tensors", 0, "sqnr_db"),
            "20",
            r"comparisons\[1\].tensors\[0\].sqnr_db should be a number",
        ),
        (("comparisons", 0, "per_image", 0, "scores"), [], r"comparisons\[0\].per_image\[0\]: .* verdicts for the 0"),
        (("networks", 0, "artifact", "backend"), "abacus", r"networks\[0\].artifact.backend should be one of"),
        (("images", "skipped"), [{"name": "a.png"}], r"the field images.skipped\[0\].reason is missing"),
        (("layers", 0, "layers", 0, "born_sqnr_db"), 1, r"there is no field layers\[0\].layers\[0\].born_sqnr_db"),
    ],
)
def test_a_wrong_field_deep_inside_is_named(
    path: tuple[str | int, ...], value: object, message: str, tmp_path: Path
) -> None:
    write_result(tmp_path / "drift.json", read_result(OLD / "drift.json", DriftResult))
    content = json.loads((tmp_path / "drift.json").read_text())
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / "drift.json").write_text(json.dumps(content))
    with pytest.raises(MeasurementError, match=message):
        read_result(tmp_path / "drift.json", DriftResult)


@pytest.mark.parametrize("version", [0, 3, "1", None, True, 1.5])
def test_a_format_that_is_not_known_is_refused(version: object, tmp_path: Path) -> None:
    (tmp_path / "eval.json").write_text(json.dumps({**old_content("eval"), "format_version": version}))
    with pytest.raises(MeasurementError, match="this version reads 1 and 2"):
        read_result(tmp_path / "eval.json", EvalResult)


def test_the_kind_decides_the_type() -> None:
    assert isinstance(read_result(OLD / "drift.json", DriftResult, EvalResult), DriftResult)
    assert isinstance(read_result(OLD / "eval.json", DriftResult, EvalResult), EvalResult)
    with pytest.raises(MeasurementError, match=r"is not a result of drift or eval \(its kind is 'compare'\)"):
        read_result(OLD / "compare.json", DriftResult, EvalResult)
    assert read_result(OLD / "compare.json", CompareResult).of == "eval"


@pytest.mark.parametrize("kind", ["drift", "eval", "compare", "bench"])
def test_old_results_with_any_field_of_another_type_are_refused_and_nothing_worse(kind: str, tmp_path: Path) -> None:
    result = OLD_TYPES[kind]
    content = old_content(kind)
    for name in set(content) - {"kind", "format_version"}:
        values: tuple[object, ...] = (3.5, True, "text", [3], [[]], {"a": 1}, [{"a": 1}])
        for value in values:
            (tmp_path / "old.json").write_text(json.dumps({**content, name: value}))
            try:
                read_result(tmp_path / "old.json", result)
            except MeasurementError:
                continue
            assert name in ("scale", "reference", "predictions", "score_threshold", "notes"), (name, value)
