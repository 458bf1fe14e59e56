"""The verbs that measure the quality of bundles: `drift`, `eval`, `compare` and `report`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.io.atomic import write_whole
from retinaface_edge.runtime.ops.postprocess import Faces

from .arguments import Verbs, add_verb, positive, share
from .exit_codes import FAILED, GOOD

if TYPE_CHECKING:
    from retinaface_edge.benchmarks.accuracy.compare import Comparable
    from retinaface_edge.benchmarks.accuracy.result import EvalResult
    from retinaface_edge.benchmarks.drift.result import DriftResult
    from retinaface_edge.benchmarks.gates.gate import Gate
    from retinaface_edge.benchmarks.inference.measurement import Execution
    from retinaface_edge.benchmarks.results import BundleOrigin


def drift(options: argparse.Namespace) -> int:
    """`drift`: compare every artifact with FP32, on pictures without annotation."""
    from retinaface_edge.benchmarks.drift.layer_metrics import layer_drift
    from retinaface_edge.benchmarks.drift.mesh_metrics import mesh_drift
    from retinaface_edge.benchmarks.drift.run import drift
    from retinaface_edge.benchmarks.inference.measurement import read_set
    from retinaface_edge.benchmarks.inference.network_under_test import REFERENCE, networks_of
    from retinaface_edge.benchmarks.report.mesh_text import mesh_text
    from retinaface_edge.benchmarks.report.text import drift_text

    gate = _gate(options)
    bundle = Bundle.load(options.bundle)
    networks = networks_of(bundle, [*(options.artifact or ["*"]), str(REFERENCE)])
    if options.checkpoint:
        from ..torch_reference import checkpoint_network

        networks.append(checkpoint_network(options.checkpoint, bundle.spec))
    files = read_set(options.images, options.limit)
    with execution_of(options) as execution:
        result = drift(
            networks, files, execution, every_pair=options.every_pair, score_threshold=options.score_threshold
        )
        if options.layers:
            (reference,) = networks_of(bundle, [str(REFERENCE)])
            result = replace(result, layers=layer_drift(reference, networks, files, execution))
        if bundle.meshes:
            result = replace(result, meshes=mesh_drift(bundle, files, execution))
    result = replace(result, bundle=_origin(bundle))
    print(drift_text(result))
    if result.meshes:
        print(f"\n{mesh_text(result.meshes)}")
    return _finish(options, result, "drift", gate)


def eval_(options: argparse.Namespace) -> int:
    """`eval`: measure accuracy on an annotated set, of a bundle or of a detector's prediction files."""
    from retinaface_edge.benchmarks.accuracy.datasets import read_boxes
    from retinaface_edge.benchmarks.accuracy.run import evaluate, evaluate_files
    from retinaface_edge.benchmarks.accuracy.wider_files import read_wider, write_predictions
    from retinaface_edge.benchmarks.errors import MeasurementError
    from retinaface_edge.benchmarks.inference.network_under_test import networks_of
    from retinaface_edge.benchmarks.report.text import eval_text

    gate = _gate(options)
    if (options.bundle is None) == (options.predictions is None):
        raise MeasurementError("give a bundle, or --predictions with the folder of a detector's text files")
    if options.predictions:
        if not options.widerface:
            raise MeasurementError("--predictions needs --widerface, the ground truth that they are compared with")
        result = evaluate_files(options.widerface, options.predictions)
    else:
        dataset = read_wider(options.widerface) if options.widerface else read_boxes(options.boxes)
        bundle = Bundle.load(options.bundle)
        folder = options.write_predictions

        def write(artifact: str, picture: str, faces: Faces) -> None:
            if folder:
                write_predictions(folder / artifact.replace(" ", "-"), picture, faces)

        with execution_of(options) as execution:
            result = evaluate(
                networks_of(bundle, options.artifact or ["*"]),
                dataset,
                execution,
                scale=options.scale,
                score_threshold=options.score_threshold,
                least_face_px=options.least_face,
                each=write,
            )
        result = replace(result, bundle=_origin(bundle))
    print(eval_text(result))
    return _finish(options, result, "eval", gate)


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
    return GOOD


def report(options: argparse.Namespace) -> int:
    """`report`: one HTML file from results."""
    from retinaface_edge.benchmarks.accuracy.result import EvalResult
    from retinaface_edge.benchmarks.drift.result import DriftResult
    from retinaface_edge.benchmarks.gates.gate import read_gate
    from retinaface_edge.benchmarks.latency.result import BenchResult
    from retinaface_edge.benchmarks.report.html import ReportInput, write_report
    from retinaface_edge.benchmarks.results import read_result

    given = ReportInput(
        bundle=Bundle.load(options.bundle),
        drift=read_result(options.drift, DriftResult) if options.drift else None,
        evals=tuple(read_result(path, EvalResult) for path in options.eval),
        bench=read_result(options.bench, BenchResult) if options.bench else None,
        images=options.images,
    )
    gate = None if options.gate == Path("none") else read_gate(options.gate)
    size = write_report(options.output, given, gate)
    print(f"wrote {options.output}, {size:,} bytes")
    return GOOD


def add_judge(verbs: Verbs) -> None:
    """Add the four verbs and their arguments."""
    _add_drift(verbs)
    _add_eval(verbs)
    _add_compare(verbs)
    _add_report(verbs)


def _add_drift(verbs: Verbs) -> None:
    summary, example = "compare every artifact with FP32", "drift bundle --images photos"
    verb = add_verb(verbs, "drift", drift, summary, example, extra="bench")
    verb.add_argument("bundle", type=Path)
    verb.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of JPEG or PNG pictures")
    verb.add_argument("--limit", type=positive, metavar="N", help="use at most N pictures, spread evenly")
    verb.add_argument("--checkpoint", type=Path, metavar="FILE", help="also compare with this checkpoint in PyTorch")
    verb.add_argument("--layers", action="store_true", help="show the error that each layer introduces")
    verb.add_argument("--every-pair", action="store_true", help="compare all artifacts with each other")
    _add_measuring(verb)
    _add_gate(verb)


def _add_eval(verbs: Verbs) -> None:
    summary, example = "measure accuracy on an annotated set", "eval bundle --widerface WIDER"
    verb = add_verb(verbs, "eval", eval_, summary, example, extra="eval")
    verb.add_argument("bundle", type=Path, nargs="?")
    _add_set(verb, required=True)
    verb.add_argument("--predictions", type=Path, metavar="DIR", help="evaluate these text files instead of a bundle")
    verb.add_argument("--write-predictions", type=Path, metavar="DIR", help="write the text files of every artifact")
    _add_measuring(verb)
    _add_gate(verb)


def _add_compare(verbs: Verbs) -> None:
    summary, example = "show what changed between two bundles or results", "compare a.json b.json"
    verb = add_verb(verbs, "compare", compare, summary, example, extra="eval")
    verb.add_argument("a", type=Path, help="a bundle, or a result of drift or eval")
    verb.add_argument("b", type=Path, help="the one to compare it with")
    _add_set(verb, required=False)
    add_running(verb)
    verb.add_argument("--json", type=Path, metavar="FILE", help="write the result")


def _add_report(verbs: Verbs) -> None:
    summary, example = "write an HTML report", "report bundle --drift drift.json --output report.html"
    verb = add_verb(verbs, "report", report, summary, example, extra="bench")
    verb.add_argument("bundle", type=Path)
    verb.add_argument("--drift", type=Path, metavar="FILE", help="result of drift --json")
    verb.add_argument("--eval", type=Path, metavar="FILE", action="append", default=[], help="result of eval --json")
    verb.add_argument("--bench", type=Path, metavar="FILE", help="result of bench --json")
    verb.add_argument("--images", type=Path, metavar="DIR", help="the pictures of drift, to show the worst ones")
    verb.add_argument(
        "--gate", type=Path, metavar="FILE", help="a gate file to judge by, or none (default: the built-in one)"
    )
    verb.add_argument("--output", type=Path, required=True, metavar="FILE", help="the HTML file to write")


def _add_set(verb: argparse.ArgumentParser, required: bool) -> None:
    group = verb.add_mutually_exclusive_group(required=required)
    group.add_argument("--widerface", type=Path, metavar="DIR", help="WIDER FACE: WIDER_val and ground_truth")
    group.add_argument("--boxes", type=Path, metavar="FILE", help="boxes as a plain list or in COCO's format (JSON)")
    verb.add_argument("--scale", default="vga", help="vga, original, multi-scale or input (default: %(default)s)")
    verb.add_argument(
        "--least-face",
        type=positive,
        default=10,
        metavar="PX",
        help="count faces of this size and larger (default: 10)",
    )


def _add_measuring(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--artifact", action="append", metavar="PATTERN", help="only these artifacts, for instance '* int8'"
    )
    verb.add_argument(
        "--score-threshold", type=share, default=0.5, help="lowest score of a face (default: %(default)s)"
    )
    verb.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    add_running(verb)


def add_running(verb: argparse.ArgumentParser) -> None:
    """Add the arguments on processes and the cache."""
    verb.add_argument("--workers", type=positive, default=1, metavar="N", help="processes (default: %(default)s)")
    verb.add_argument("--dask", metavar="ADDRESS", help="run on this Dask cluster instead")
    verb.add_argument(
        "--cache", type=Path, metavar="DIR", help="cache of results (default: in the user's cache folder)"
    )
    verb.add_argument("--no-cache", action="store_true", help="measure everything again, and cache nothing")


def _add_gate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--gate", metavar="FILE", default="default", help="a gate file, default, or none (default: %(default)s)"
    )
    verb.add_argument("--junit", type=Path, metavar="FILE", help="write the outcome of the gate as JUnit XML")


def _gate(options: argparse.Namespace) -> Gate | None:
    """The gate to judge by, read and checked before anything is measured."""
    from retinaface_edge.benchmarks.gates.gate import read_gate

    if options.gate == "none":
        return None
    return read_gate(None if options.gate == "default" else Path(options.gate))


def _finish(options: argparse.Namespace, result: DriftResult | EvalResult, suite: str, gate: Gate | None) -> int:
    """Write what was asked for and judge; gives the exit code."""
    from retinaface_edge.benchmarks.gates.gate import failures, junit, outcomes_of
    from retinaface_edge.benchmarks.gates.sufficiency import shortfalls
    from retinaface_edge.benchmarks.report.text import gate_text
    from retinaface_edge.benchmarks.results import write_result

    if options.json:
        write_result(options.json, result)
    if gate is None:
        return GOOD
    outcomes = outcomes_of(gate, [result])
    lacking = shortfalls(gate, result, outcomes)
    if not any(outcome.passed is not None for outcome in outcomes):
        lacking.append("no rule of the gate applies to anything in this result; check its floors and patterns")
    if options.junit:
        write_whole(options.junit, junit(outcomes, suite, lacking))
    print(gate_text(outcomes, lacking))
    return FAILED if failures(outcomes) or lacking else GOOD


def _evaluated(options: argparse.Namespace, path: Path) -> Comparable:
    from retinaface_edge.benchmarks.accuracy.compare import comparable
    from retinaface_edge.benchmarks.accuracy.datasets import read_boxes
    from retinaface_edge.benchmarks.accuracy.run import evaluate
    from retinaface_edge.benchmarks.accuracy.wider_files import read_wider
    from retinaface_edge.benchmarks.inference.network_under_test import networks_of

    dataset = read_wider(options.widerface) if options.widerface else read_boxes(options.boxes)
    networks = networks_of(Bundle.load(path))
    with execution_of(options) as execution:
        result = evaluate(networks, dataset, execution, scale=options.scale, least_face_px=options.least_face)
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


@contextmanager
def execution_of(options: argparse.Namespace) -> Iterator[Execution]:
    """How pictures are measured, by the arguments of `add_running`."""
    from retinaface_edge.benchmarks.inference.measurement import Execution
    from retinaface_edge.benchmarks.inference.result_cache import ResultCache, default_folder

    from .progress import bar

    if options.no_cache:
        yield Execution(None, options.workers, options.dask, bar)
        return
    with ResultCache(options.cache or default_folder()) as cache:
        yield Execution(cache, options.workers, options.dask, bar)


def _origin(bundle: Bundle) -> BundleOrigin:
    from retinaface_edge.benchmarks.results import BundleOrigin

    return BundleOrigin(bundle.manifest["digest"], bundle.manifest.get("provenance", {}))
