"""Arguments that all verbs share which measure pictures, and what they do with a result."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.io.atomic import write_atomic

from ..arguments import positive, share, size
from ..exit_codes import FAILED, GOOD

if TYPE_CHECKING:
    from retinaface_edge.benchmarks.accuracy.result import EvalResult
    from retinaface_edge.benchmarks.csv_tables import Result
    from retinaface_edge.benchmarks.drift.result import DriftResult
    from retinaface_edge.benchmarks.gates.gate import Gate
    from retinaface_edge.benchmarks.identity.crops import Recogniser
    from retinaface_edge.benchmarks.identity.result import VerificationResult
    from retinaface_edge.benchmarks.inference.measurement import Execution
    from retinaface_edge.benchmarks.results import BundleOrigin


def add_set(verb: argparse.ArgumentParser, required: bool) -> argparse._MutuallyExclusiveGroup:
    """Add the annotated sets of which one is given, and at which scale; gives the group of them."""
    group = verb.add_mutually_exclusive_group(required=required)
    group.add_argument("--widerface", type=Path, metavar="DIR", help="WIDER FACE: WIDER_val and ground_truth")
    group.add_argument("--boxes", type=Path, metavar="FILE", help="boxes as a list or in COCO's format (JSON)")
    verb.add_argument("--scale", default="vga", help="vga, original, multi-scale or input (default: %(default)s)")
    verb.add_argument(
        "--least-face",
        type=positive,
        default=10,
        metavar="PX",
        help="count faces of this size and larger (default: 10)",
    )
    return group


def add_measuring(verb: argparse.ArgumentParser) -> None:
    """Add which artifacts are measured, and where the result goes."""
    verb.add_argument(
        "--artifact", action="append", metavar="PATTERN", help="only these artifacts, for instance '* int8'"
    )
    add_bundle_size(verb)
    verb.add_argument(
        "--score-threshold", type=share, default=0.5, metavar="S", help="lowest score of a face (default: %(default)s)"
    )
    verb.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    add_csv(verb)
    add_running(verb)


def add_bundle_size(verb: argparse.ArgumentParser) -> None:
    """Add which input size is measured."""
    verb.add_argument("--size", type=size, metavar="WxH", help="input size, where the bundle has several")


def bundle_of(options: argparse.Namespace) -> Bundle:
    """The bundle, as one of the input size that is measured."""
    bundle = Bundle.load(options.bundle)
    return bundle.at(*options.size) if options.size else bundle


def add_csv(verb: argparse.ArgumentParser) -> None:
    """Add the folder for tables."""
    verb.add_argument("--csv", type=Path, metavar="DIR", help="write every table of the result as a CSV file")


def tables_as_csv(options: argparse.Namespace, *results: Result) -> None:
    """Write the tables of results, if that was asked for."""
    from retinaface_edge.benchmarks.csv_tables import write_csv

    if options.csv:
        print(f"wrote {len(write_csv(options.csv, results))} tables to {options.csv}")


def add_running(verb: argparse.ArgumentParser) -> None:
    """Add how measuring runs: processes, cluster, cache."""
    verb.add_argument("--workers", type=positive, default=1, metavar="N", help="processes (default: %(default)s)")
    verb.add_argument("--dask", metavar="ADDRESS", help="run on this Dask cluster instead")
    verb.add_argument(
        "--cache", type=Path, metavar="DIR", help="cache of results (default: in the user's cache folder)"
    )
    verb.add_argument("--no-cache", action="store_true", help="measure everything again, and cache nothing")


def add_gate(verb: argparse.ArgumentParser) -> None:
    """Add the gate and its report."""
    verb.add_argument(
        "--gate", metavar="FILE", default="default", help="a gate file, default, or none (default: %(default)s)"
    )
    verb.add_argument("--junit", type=Path, metavar="FILE", help="write the outcome of the gate as JUnit XML")


def gate_of(options: argparse.Namespace) -> Gate | None:
    """The gate to judge by, read and checked before anything is measured."""
    from retinaface_edge.benchmarks.gates.gate import read_gate

    if options.gate == "none":
        return None
    return read_gate(None if options.gate == "default" else Path(options.gate))


def finish(
    options: argparse.Namespace, result: DriftResult | EvalResult | VerificationResult, suite: str, gate: Gate | None
) -> int:
    """Write what was asked for and judge; gives the exit code."""
    from retinaface_edge.benchmarks.gates.gate import failures, junit, outcomes_of
    from retinaface_edge.benchmarks.gates.sufficiency import shortfalls
    from retinaface_edge.benchmarks.report.text import gate_text
    from retinaface_edge.benchmarks.results import write_result

    if options.json:
        write_result(options.json, result)
    tables_as_csv(options, result)
    if gate is None:
        return GOOD
    outcomes = outcomes_of(gate, [result])
    lacking = shortfalls(gate, result, outcomes)
    if not any(outcome.passed is not None for outcome in outcomes):
        lacking.append("no rule of the gate applies to anything in this result; check its floors and patterns")
    if options.junit:
        write_atomic(options.junit, junit(outcomes, suite, lacking))
    print(gate_text(outcomes, lacking))
    return FAILED if failures(outcomes) or lacking else GOOD


@contextmanager
def execution(options: argparse.Namespace) -> Iterator[Execution]:
    """How the options say that pictures are measured."""
    from retinaface_edge.benchmarks.inference.measurement import Execution
    from retinaface_edge.benchmarks.inference.result_cache import ResultCache, default_folder

    from ..progress import bar

    if options.no_cache:
        yield Execution(None, options.workers, options.dask, bar)
        return
    with ResultCache(options.cache or default_folder()) as cache:
        yield Execution(cache, options.workers, options.dask, bar)


def origin(bundle: Bundle) -> BundleOrigin:
    """What a result says of the bundle."""
    from retinaface_edge.benchmarks.results import BundleOrigin

    return BundleOrigin(bundle.manifest["digest"], bundle.manifest.get("provenance", {}))


def add_recogniser(verb: argparse.ArgumentParser) -> None:
    """Add the recogniser, what its file cannot tell of its input, and where its embeddings may be written."""
    group = verb.add_argument_group("face recognition")
    group.add_argument("--embedder", type=Path, metavar="FILE", help="a face recognition network as ONNX")
    group.add_argument(
        "--embedder-size", type=positive, metavar="PX", help="side of its crops, where its input has no fixed size"
    )
    group.add_argument(
        "--embedder-mean", type=_number, metavar="M", help="its input is (x - M) / S (default: 127.5, as ArcFace's)"
    )
    group.add_argument("--embedder-std", type=_number, metavar="S", help="see --embedder-mean (default: 128)")
    group.add_argument("--embedder-colour", choices=("BGR", "RGB"), help="its order of colours (default: RGB)")
    group.add_argument(
        "--keep-embeddings",
        type=Path,
        metavar="FILE",
        help="write the embeddings (.npz); without it they are neither written nor cached",
    )


def recogniser_of(options: argparse.Namespace) -> Recogniser | None:
    """The recogniser that the options describe, None without --embedder. Raises `MeasurementError`, `EmbedderError`."""
    from retinaface_edge.benchmarks.errors import MeasurementError
    from retinaface_edge.benchmarks.identity.crops import read_recogniser
    from retinaface_edge.benchmarks.identity.embedder import Preprocessing
    from retinaface_edge.runtime.spec import Colour

    names = {"embedder_mean": "mean", "embedder_std": "std", "embedder_colour": "colour", "embedder_size": "size"}
    given = {name: getattr(options, option) for option, name in names.items() if getattr(options, option) is not None}
    if options.embedder is None:
        if given or options.keep_embeddings:
            option = next((o for o, name in names.items() if name in given), "keep_embeddings")
            raise MeasurementError(f"--{option.replace('_', '-')} is for a recogniser; give one with --embedder")
        return None
    if "colour" in given:
        given["colour"] = Colour(given["colour"])
    return read_recogniser(
        options.embedder, Preprocessing(**given), assumed=not given.keys() & {"mean", "std", "colour"}
    )


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value
