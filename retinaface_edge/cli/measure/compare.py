"""The verb `compare`: what changed between two bundles or results."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from retinaface_edge.runtime.bundle.bundle import Bundle

from ..arguments import Verbs, add_verb
from ..exit_codes import GOOD
from .options import add_csv, add_running, add_set, execution, tables_as_csv

if TYPE_CHECKING:
    from retinaface_edge.benchmarks.accuracy.compare import Comparable


def compare(options: argparse.Namespace) -> int:
    """`compare`: find what changed between two bundles or results beyond noise."""
    from retinaface_edge.benchmarks.accuracy.compare import compare_results
    from retinaface_edge.benchmarks.errors import MeasurementError
    from retinaface_edge.benchmarks.report.text import compare_text
    from retinaface_edge.benchmarks.results import write_result

    bundles = [path.is_dir() for path in (options.a, options.b)]
    if any(bundles):
        if not all(bundles):
            raise MeasurementError("compare takes two bundles or two result files, not one of each")
        if not (options.widerface or options.boxes):
            raise MeasurementError("to compare bundles, give an annotated set: --widerface or --boxes")
        a, b = (_evaluated(options, path) for path in (options.a, options.b))
    else:
        a, b = (_comparable(path) for path in (options.a, options.b))
    result = compare_results(a, b)
    print(compare_text(result))
    if options.json:
        write_result(options.json, result)
    tables_as_csv(options, result)
    return GOOD


def add_compare(verbs: Verbs) -> None:
    """Add the verb and its arguments."""
    summary, example = "show what changed between two bundles or results", "compare a.json b.json"
    verb = add_verb(verbs, "compare", compare, summary, example, extra="eval")
    verb.add_argument("a", type=Path, help="a bundle, or a result of drift or eval")
    verb.add_argument("b", type=Path, help="the one to compare it with")
    add_set(verb, required=False)
    add_running(verb)
    verb.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    add_csv(verb)


def _evaluated(options: argparse.Namespace, path: Path) -> Comparable:
    from retinaface_edge.benchmarks.accuracy.compare import comparable
    from retinaface_edge.benchmarks.accuracy.datasets import read_boxes
    from retinaface_edge.benchmarks.accuracy.run import evaluate
    from retinaface_edge.benchmarks.accuracy.wider_files import read_wider
    from retinaface_edge.benchmarks.inference.network_under_test import networks_of

    dataset = read_wider(options.widerface) if options.widerface else read_boxes(options.boxes)
    networks = networks_of(Bundle.load(path))
    with execution(options) as how:
        result = evaluate(networks, dataset, how, scale=options.scale, least_face_px=options.least_face)
    return comparable(result)


def _comparable(path: Path) -> Comparable:
    """A result file of `drift` or `eval`, to be compared."""
    from retinaface_edge.benchmarks.accuracy import compare as accuracy
    from retinaface_edge.benchmarks.accuracy.result import EvalResult
    from retinaface_edge.benchmarks.drift import comparable as drift
    from retinaface_edge.benchmarks.drift.result import DriftResult
    from retinaface_edge.benchmarks.results import read_result

    result = read_result(path, DriftResult, EvalResult)
    return drift.comparable(result) if isinstance(result, DriftResult) else accuracy.comparable(result)
