"""Any result alone or with others becomes a report and CSV tables, with no bundle at hand."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from jsonschema import Draft202012Validator

from retinaface_edge.benchmarks.accuracy.result import CompareResult, EvalResult
from retinaface_edge.benchmarks.choose.result import Candidate, ChooseResult, ComparedBundle, Recommendation
from retinaface_edge.benchmarks.cost.result import ArtifactCost, CostResult, Estimate, Part, Work
from retinaface_edge.benchmarks.csv_tables import csv_tables
from retinaface_edge.benchmarks.drift.result import DriftResult
from retinaface_edge.benchmarks.identity.result import EmbedderRecord, RocCurve, VerificationFigures, VerificationResult
from retinaface_edge.benchmarks.identity.verification import FoldAccuracy, TarAtFar
from retinaface_edge.benchmarks.latency.result import BenchResult
from retinaface_edge.benchmarks.results import BundleOrigin, ImageSet, read_result, write_result
from retinaface_edge.cli.main import main
from retinaface_edge.runtime.artifact import ArtifactId
from retinaface_edge.runtime.spec import Colour
from retinaface_edge.schemas import read_schema

OLD = ROOT / "tests" / "fixtures" / "results_v1"
ORIGIN = BundleOrigin("d" * 64, {"recipe": "balanced"})
DRIFT = replace(read_result(OLD / "drift.json", DriftResult), bundle=ORIGIN)
EVAL = replace(read_result(OLD / "eval.json", EvalResult), bundle=ORIGIN)
BENCH = replace(read_result(OLD / "bench.json", BenchResult), bundle=ORIGIN)
COMPARE = read_result(OLD / "compare.json", CompareResult)
INT8 = ArtifactId.parse("openvino int8")
CHOOSE = ChooseResult(
    kind="choose", format_version=2, environment={},
    bundles=(ComparedBundle("small", "a", "SCRFD", "MIT", (640, 480)),),
    dataset=EVAL.dataset, images=ImageSet(3, "a"), scale="vga", frames=BENCH.frames, run=BENCH.run,
    machine=BENCH.machine, machine_use=BENCH.machine_use, budget_ms=33.0,
    candidates=(Candidate("small", INT8, 4.0, 4.25, 4.5, 0.625, 1000, 80.0, on_front=True),),
    recommendation=Recommendation("small", INT8, "it is the only one"),
)  # fmt: skip
VERIFICATION = VerificationResult(
    kind="verification", format_version=2, environment={}, networks=EVAL.networks,
    embedder=EmbedderRecord("r.onnx", "e" * 64, 112, 127.5, 128.0, Colour.RGB, True), pairs="pairs.csv", genuine=30,
    impostors=20, folds="in order", face="largest", scale="vga", input_px=(640, 480), score_threshold=0.5,
    images=ImageSet(40, "a"),
    results=(
        VerificationFigures(
            "openvino int8", 1, 2, 3, FoldAccuracy(0.9375, 0.01, (0.9, 1.0)), (TarAtFar(0.1, 0.5, 0.4, 0.6, 0.3),),
            RocCurve((0.0, 1.0), (0.0, 1.0)),
        ),
    ),
)  # fmt: skip
COST = CostResult(
    kind="cost", format_version=2, bundle_digest="b", input_digest="i", tools={"qemu": "7"}, models={"cortex-a72": "m"},
    artifacts=(
        ArtifactCost("tflite int8", Part.DETECTOR, "cortex-a72", "d", 100, Work(1, 2, 3, 4, 5, 6, 7), (),
                     (Estimate(1, 20.5, 30.5, "from counts"),)),
    ),
)  # fmt: skip
ALL: dict[str, tuple[Any, str, str]] = {
    "drift": (DRIFT, "Summary", "faces"),
    "eval": (EVAL, "Recall by face size", "accuracy"),
    "bench": (BENCH, "95 % interval", "runners"),
    "compare": (COMPARE, "What changed", "changes"),
    "choose": (CHOOSE, "Recommended: small openvino int8, it is the only one", "candidates"),
    "verification": (VERIFICATION, "0.9375", "accuracy"),
    "cost": (COST, "20.5 to 30.5 ms", "artifacts"),
}


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("kind", ALL)
def test_any_result_alone_is_a_report_and_tables(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result, said, table = ALL[kind]
    write_result(tmp_path / "result.json", result)
    Draft202012Validator(read_schema(f"results/{kind}")).validate(json.loads((tmp_path / "result.json").read_text()))
    command = ["report", str(tmp_path / "result.json"), "--output", str(tmp_path / "r.html"), "--csv", str(tmp_path)]
    assert main(command) == 0
    assert said in (tmp_path / "r.html").read_text("utf-8")
    tables = csv_tables(result)
    assert f"wrote {len(tables)} tables" in capsys.readouterr().out
    assert {path.name for path in tmp_path.glob("*.csv")} == {f"{kind}-{name}.csv" for name in tables}
    assert rows_of((tmp_path / f"{kind}-{table}.csv").read_text("utf-8")) == rows_of(tables[table]) != []


def test_all_results_together_are_one_report(tmp_path: Path) -> None:
    paths = []
    for kind, (result, _, _) in ALL.items():
        paths.append(tmp_path / f"{kind}.json")
        write_result(paths[-1], result)
    paths.append(paths[1])  # a second annotated set
    assert main(["report", *map(str, paths), "--output", str(tmp_path / "r.html"), "--csv", str(tmp_path / "csv")]) == 0
    page = (tmp_path / "r.html").read_text("utf-8")
    assert all(said in page for _, said, _ in ALL.values())
    assert (tmp_path / "csv" / "eval-accuracy.csv").read_text() == (
        tmp_path / "csv" / "eval-2-accuracy.csv"
    ).read_text()


def test_results_of_two_bundles_do_not_make_one_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_result(tmp_path / "a.json", DRIFT)
    write_result(tmp_path / "b.json", replace(EVAL, bundle=BundleOrigin("e" * 64, {})))
    output = ["--output", str(tmp_path / "r.html")]
    assert main(["report", str(tmp_path / "a.json"), str(tmp_path / "b.json"), *output]) == 2
    assert "a result of eval is from a different bundle than the first" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "a.json"), str(tmp_path / "a.json"), *output]) == 2
    assert "one result of drift" in capsys.readouterr().err
    assert main(["report", *output]) == 2
    assert "nothing to report" in capsys.readouterr().err


def test_figures_have_all_their_digits() -> None:
    tables = csv_tables(DRIFT)
    for row, comparison in zip(rows_of(tables["faces"]), DRIFT.comparisons, strict=True):
        assert (row["artifact"], row["reference"]) == (comparison.artifact, comparison.reference)
        assert float(row["detections_ap_0.5"]) == comparison.detections.ap["0.5"]
        assert float(row["detections_iou_mean"]) == comparison.detections.iou_mean
    outputs = rows_of(tables["outputs"])
    assert len(outputs) == sum(len(comparison.tensors) for comparison in DRIFT.comparisons)
    assert {row["artifact"] for row in outputs} == {comparison.artifact for comparison in DRIFT.comparisons}
    curve = EVAL.results[0].curves
    points = [row for row in rows_of(csv_tables(EVAL)["curves"]) if row["artifact"] == EVAL.results[0].artifact]
    assert len(points) == sum(len(one.recall) for one in curve.values())
    for row, runner in zip(rows_of(csv_tables(BENCH)["runners"]), BENCH.runners, strict=True):
        assert float(row["latency_p50_ms"]) == runner.latency.p50_ms
        assert row["agreement_drift_percent"] == (
            "" if runner.agreement is None else str(runner.agreement.drift_percent)
        )
    (candidate,) = rows_of(csv_tables(CHOOSE)["candidates"])
    assert candidate["artifact"] == "openvino int8" and candidate["peak_memory_bytes"] == ""


def test_names_that_no_file_takes_are_escaped() -> None:
    worst = replace(COMPARE.changes[0], artifact="a\udcff\nb")
    (row, *_) = rows_of(csv_tables(replace(COMPARE, changes=(worst,)))["changes"])
    assert row["artifact"] == "a\\xff\\x0ab"
