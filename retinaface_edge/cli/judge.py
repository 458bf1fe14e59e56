"""The verbs that judge bundles: `drift`, `eval`, `compare` and `report`. The work is done in `benchmarks`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.io.atomic import write_whole

from .arguments import Verbs, add_verb, positive, share
from .exit_codes import FAILED, GOOD


def drift(options: argparse.Namespace) -> int:
    """`drift`: every artifact against FP32, on pictures without annotation."""
    from retinaface_edge.benchmarks.drift.layer_metrics import layer_drift
    from retinaface_edge.benchmarks.drift.run import REFERENCE, drift, read_set
    from retinaface_edge.benchmarks.inference.network_under_test import subjects_of
    from retinaface_edge.benchmarks.report.text import drift_text

    bundle = Bundle.load(options.bundle)
    subjects = subjects_of(bundle, [*(options.artifact or ["*"]), REFERENCE])
    if options.checkpoint:
        from ..torch_reference import checkpoint_subject

        subjects.append(checkpoint_subject(options.checkpoint, bundle.spec))
    files = read_set(options.images, options.limit)
    with _cache(options) as cache:
        result = drift(
            subjects,
            files,
            cache,
            every_pair=options.every_pair,
            score_threshold=options.score_threshold,
            **_execution(options),
        )
    if options.layers:
        (reference,) = subjects_of(bundle, [REFERENCE])
        result["layers"] = layer_drift(reference, subjects, files)
    result["bundle"] = _provenance(bundle)
    print(drift_text(result))
    if bundle.meshes:
        from retinaface_edge.benchmarks.drift.mesh_metrics import mesh_drift, mesh_drift_text

        unreadable = {skipped["name"] for skipped in result["images"]["skipped"]}
        result["meshes"] = mesh_drift(bundle, {name: path for name, path in files.items() if name not in unreadable})
        print(f"\n{mesh_drift_text(result['meshes'])}")
    return _finish(options, result, "drift")


def eval_(options: argparse.Namespace) -> int:
    """`eval`: accuracy on an annotated set, of a bundle or of predictions made elsewhere."""
    from retinaface_edge.benchmarks.accuracy.datasets import read_boxes
    from retinaface_edge.benchmarks.accuracy.run import evaluate, evaluate_files
    from retinaface_edge.benchmarks.accuracy.wider_files import read_wider, write_predictions
    from retinaface_edge.benchmarks.inference.network_under_test import MeasurementError, subjects_of
    from retinaface_edge.benchmarks.report.text import eval_text

    if (options.bundle is None) == (options.predictions is None):
        raise MeasurementError("give a bundle, or --predictions with the folder of a detector's text files")
    if options.predictions:
        if not options.widerface:
            raise MeasurementError("--predictions are in the WIDER FACE form; give --widerface with its ground truth")
        result = evaluate_files(options.widerface, options.predictions)
    else:
        dataset = read_wider(options.widerface) if options.widerface else read_boxes(options.boxes)
        bundle = Bundle.load(options.bundle)
        folder = options.write_predictions

        def write(artifact: str, picture: str, faces: Any) -> None:
            if folder:
                write_predictions(folder / artifact.replace(" ", "-"), picture, faces)

        with _cache(options) as cache:
            result = evaluate(
                subjects_of(bundle, options.artifact or ["*"]),
                dataset,
                cache,
                scale=options.scale,
                score_threshold=options.score_threshold,
                least_face=options.least_face,
                each=write,
                **_execution(options),
            )
        result["bundle"] = _provenance(bundle)
    print(eval_text(result))
    return _finish(options, result, "eval")


def compare(options: argparse.Namespace) -> int:
    """`compare`: what changed between two bundles or two results, noise called noise."""
    from retinaface_edge.benchmarks.accuracy.compare import compare_results
    from retinaface_edge.benchmarks.inference.network_under_test import MeasurementError
    from retinaface_edge.benchmarks.report.text import compare_text
    from retinaface_edge.benchmarks.results import read_result, write_result

    bundles = [path.is_dir() for path in (options.a, options.b)]
    if any(bundles):
        if not all(bundles):
            raise MeasurementError("compare takes two bundles or two result files, not one of each")
        if not (options.widerface or options.boxes):
            raise MeasurementError("to compare bundles, give the set to compare them on: --widerface or --boxes")
        a, b = (_evaluated(options, path) for path in (options.a, options.b))
    else:
        a, b = (read_result(path, ("drift", "eval")) for path in (options.a, options.b))
    result = compare_results(a, b)
    print(compare_text(result))
    if options.json:
        write_result(options.json, result)
    return GOOD


def report(options: argparse.Namespace) -> int:
    """`report`: one HTML file from results."""
    from retinaface_edge.benchmarks.report.html import write_report
    from retinaface_edge.benchmarks.results import read_result

    bundle = Bundle.load(options.bundle)
    size = write_report(
        options.output,
        bundle,
        drift=read_result(options.drift, ("drift",)) if options.drift else None,
        evals=[read_result(path, ("eval",)) for path in options.eval],
        bench=options.bench,
        images=options.images,
        gate=options.gate,
    )
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
    verb.add_argument("--limit", type=positive, metavar="N", help="use at most N of them, spread evenly")
    verb.add_argument("--checkpoint", type=Path, metavar="FILE", help="compare with this checkpoint in PyTorch, too")
    verb.add_argument("--layers", action="store_true", help="show in which layers the difference is born")
    verb.add_argument("--every-pair", action="store_true", help="compare all artifacts with each other")
    _add_measuring(verb)
    _add_gate(verb)


def _add_eval(verbs: Verbs) -> None:
    summary, example = "measure accuracy on an annotated set", "eval bundle --widerface WIDER"
    verb = add_verb(verbs, "eval", eval_, summary, example, extra="eval")
    verb.add_argument("bundle", type=Path, nargs="?")
    _add_set(verb, required=True)
    verb.add_argument("--predictions", type=Path, metavar="DIR", help="judge these text files instead of a bundle")
    verb.add_argument("--write-predictions", type=Path, metavar="DIR", help="write every artifact's text files")
    _add_measuring(verb)
    _add_gate(verb)


def _add_compare(verbs: Verbs) -> None:
    summary, example = "say what changed between two bundles or results", "compare a.json b.json"
    verb = add_verb(verbs, "compare", compare, summary, example, extra="eval")
    verb.add_argument("a", type=Path, help="a bundle, or a result that drift or eval wrote")
    verb.add_argument("b", type=Path, help="the other")
    _add_set(verb, required=False)
    _add_running(verb)
    verb.add_argument("--json", type=Path, metavar="FILE", help="write the result")


def _add_report(verbs: Verbs) -> None:
    summary, example = "write an HTML report", "report bundle --drift drift.json --output report.html"
    verb = add_verb(verbs, "report", report, summary, example, extra="bench")
    verb.add_argument("bundle", type=Path)
    verb.add_argument("--drift", type=Path, metavar="FILE", help="what `drift --json` wrote")
    verb.add_argument("--eval", type=Path, metavar="FILE", action="append", default=[], help="what `eval --json` wrote")
    verb.add_argument("--bench", type=Path, metavar="FILE", help="what `bench --json` wrote")
    verb.add_argument("--images", type=Path, metavar="DIR", help="the pictures of drift, to draw the worst of them")
    verb.add_argument("--gate", type=Path, metavar="FILE", help="gate to show (default: the one that ships)")
    verb.add_argument("--output", type=Path, required=True, metavar="FILE", help="the HTML file to write")


def _add_set(verb: argparse.ArgumentParser, required: bool) -> None:
    group = verb.add_mutually_exclusive_group(required=required)
    group.add_argument("--widerface", type=Path, metavar="DIR", help="WIDER FACE: WIDER_val and ground_truth")
    group.add_argument("--boxes", type=Path, metavar="FILE", help="boxes as a plain list or in COCO's form (JSON)")
    verb.add_argument("--scale", default="vga", help="vga, original, multi-scale or input (default: %(default)s)")
    verb.add_argument(
        "--least-face", type=positive, default=10, metavar="PX", help="count faces from this size (default: 10)"
    )


def _add_measuring(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--artifact", action="append", metavar="PATTERN", help="only these, for instance '* int8'")
    verb.add_argument("--score-threshold", type=share, default=0.5, help="operating score (default: %(default)s)")
    verb.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    _add_running(verb)


def _add_running(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--workers", type=positive, default=1, metavar="N", help="processes (default: %(default)s)")
    verb.add_argument("--dask", metavar="ADDRESS", help="run on this Dask cluster instead")
    verb.add_argument("--cache", type=Path, metavar="DIR", help="where results are kept (default: the user's cache)")
    verb.add_argument("--no-cache", action="store_true", help="measure everything again, keep nothing")


def _add_gate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--gate", metavar="FILE", default="default", help="a gate file, default, or none")
    verb.add_argument("--junit", type=Path, metavar="FILE", help="write the gate's outcome as JUnit XML")


def _finish(options: argparse.Namespace, result: Mapping[str, Any], suite: str) -> int:
    """Write what was asked for and judge; gives the exit code."""
    from retinaface_edge.benchmarks.gates.gate import apply_gate, failures, junit, read_gate
    from retinaface_edge.benchmarks.report.text import gate_text
    from retinaface_edge.benchmarks.results import write_result

    if options.json:
        write_result(options.json, result)
    if options.gate == "none":
        return GOOD
    outcomes = apply_gate(read_gate(None if options.gate == "default" else Path(options.gate)), result)
    if options.junit:
        write_whole(options.junit, junit(outcomes, suite))
    print(gate_text(outcomes))
    return FAILED if failures(outcomes) else GOOD


def _evaluated(options: argparse.Namespace, path: Path) -> dict[str, Any]:
    from retinaface_edge.benchmarks.accuracy.datasets import read_boxes
    from retinaface_edge.benchmarks.accuracy.run import evaluate
    from retinaface_edge.benchmarks.accuracy.wider_files import read_wider
    from retinaface_edge.benchmarks.inference.network_under_test import subjects_of

    dataset = read_wider(options.widerface) if options.widerface else read_boxes(options.boxes)
    with _cache(options) as cache:
        return evaluate(
            subjects_of(Bundle.load(path)),
            dataset,
            cache,
            scale=options.scale,
            least_face=options.least_face,
            **_execution(options),
        )


def _cache(options: argparse.Namespace) -> Any:
    from retinaface_edge.benchmarks.inference.result_cache import ResultCache, default_folder

    return ResultCache(None if options.no_cache else options.cache or default_folder())


def _execution(options: argparse.Namespace) -> dict[str, Any]:
    from .progress import bar

    return {"workers": options.workers, "dask": options.dask, "progress": bar}


def _provenance(bundle: Bundle) -> dict[str, Any]:
    return {"digest": bundle.manifest["digest"], "provenance": bundle.manifest.get("provenance", {})}
