"""The verb `report`: one HTML file from results, with or without their bundle."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_edge.runtime.bundle.bundle import Bundle

from ..arguments import Verbs, add_verb
from ..exit_codes import GOOD
from .options import add_csv, tables_as_csv

if TYPE_CHECKING:
    from retinaface_edge.benchmarks.report.sections import Section


def report(options: argparse.Namespace) -> int:
    """`report`: one HTML file from results."""
    from retinaface_edge.benchmarks.accuracy.result import EvalResult
    from retinaface_edge.benchmarks.drift.result import DriftResult
    from retinaface_edge.benchmarks.errors import MeasurementError
    from retinaface_edge.benchmarks.gates.gate import read_gate
    from retinaface_edge.benchmarks.latency.result import BenchResult
    from retinaface_edge.benchmarks.report.html import ReportInput, write_report
    from retinaface_edge.benchmarks.results import read_result

    folders = [path for path in options.inputs if path.is_dir()]
    if len(folders) > 1:
        raise MeasurementError("a report is of one bundle: give one folder at most, and results")
    results: list[Any] = [_read(path) for path in options.inputs if not path.is_dir()]
    results += [read_result(path, DriftResult) for path in [options.drift] if path]
    results += [read_result(path, EvalResult) for path in options.eval]
    results += [read_result(path, BenchResult) for path in [options.bench] if path]
    drifts = [result for result in results if isinstance(result, DriftResult)]
    benches = [result for result in results if isinstance(result, BenchResult)]
    if max(len(drifts), len(benches)) > 1:
        raise MeasurementError("a report has one result of drift and one of bench at most; make a report of each")
    given = ReportInput(
        bundle=Bundle.load(folders[0]) if folders else None,
        drift=drifts[0] if drifts else None,
        evals=tuple(result for result in results if isinstance(result, EvalResult)),
        bench=benches[0] if benches else None,
        images=options.images,
        sections=tuple(_section(result) for result in results if not isinstance(result, _of_a_bundle())),
    )
    gate = None if options.gate == Path("none") else read_gate(options.gate)
    size = write_report(options.output, given, gate)
    print(f"wrote {options.output}, {size:,} bytes")
    tables_as_csv(options, *results)
    return GOOD


def _of_a_bundle() -> tuple[type, ...]:
    """The results that the report shows together; each other one is a section."""
    from retinaface_edge.benchmarks.accuracy.result import EvalResult
    from retinaface_edge.benchmarks.drift.result import DriftResult
    from retinaface_edge.benchmarks.latency.result import BenchResult

    return DriftResult, EvalResult, BenchResult


def _read(path: Path) -> Any:
    """A result of any kind. Raises `MeasurementError`."""
    from retinaface_edge.benchmarks.accuracy.result import CompareResult
    from retinaface_edge.benchmarks.choose.result import ChooseResult
    from retinaface_edge.benchmarks.cost.result import CostResult
    from retinaface_edge.benchmarks.identity.result import VerificationResult
    from retinaface_edge.benchmarks.results import kind_of, read_content, read_result

    types = (*_of_a_bundle(), CompareResult, ChooseResult, CostResult, VerificationResult)
    kinds = {kind_of(one): one for one in types}
    return read_result(path, kinds[read_content(path, tuple(kinds))["kind"]])


def _section(result: Any) -> Section:
    from retinaface_edge.benchmarks.cost.report import cost_section
    from retinaface_edge.benchmarks.cost.result import CostResult
    from retinaface_edge.benchmarks.report.sections import section

    return cost_section(result) if isinstance(result, CostResult) else section(result)


def add_report(verbs: Verbs) -> None:
    """Add the verb and its arguments."""
    summary, example = "write an HTML report", "report bundle drift.json bench.json --output report.html"
    verb = add_verb(verbs, "report", report, summary, example, extra="bench")
    verb.add_argument(
        "inputs",
        type=Path,
        nargs="*",
        metavar="BUNDLE|RESULT",
        help="results of any verb, and their bundle if available",
    )
    verb.add_argument("--drift", type=Path, metavar="FILE", help="result of drift --json")
    verb.add_argument("--eval", type=Path, metavar="FILE", action="append", default=[], help="result of eval --json")
    verb.add_argument("--bench", type=Path, metavar="FILE", help="result of bench --json")
    verb.add_argument("--images", type=Path, metavar="DIR", help="the pictures of drift, to show the worst ones")
    verb.add_argument(
        "--gate", type=Path, metavar="FILE", help="a gate file to judge by, or none (default: the built-in one)"
    )
    verb.add_argument("--output", type=Path, required=True, metavar="FILE", help="the HTML file to write")
    add_csv(verb)
