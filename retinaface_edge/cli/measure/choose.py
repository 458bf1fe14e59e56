"""The verb `choose`: bundles side by side on this machine, and one of their artifacts to run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.host.targets import BUDGETS, choose_target, read_budget, this_processor
from retinaface_edge.runtime.io.atomic import write_atomic

from ..arguments import Verbs, add_verb, milliseconds, positive, size
from ..exit_codes import FAILED, GOOD
from ..progress import say
from .options import add_csv, add_running, execution, tables_as_csv

if TYPE_CHECKING:
    from retinaface_edge.benchmarks.accuracy.datasets import Dataset
    from retinaface_edge.benchmarks.inference.measurement import Execution
    from retinaface_edge.benchmarks.latency.runners import Frame

REAL_TIME = "vga-30fps"
"""The budget where none is given and this kind of machine has none of its own."""


def choose(options: argparse.Namespace) -> int:
    """`choose`: accuracy, latency, bytes and memory of every artifact of all bundles; the front, and one of them."""
    from retinaface_edge.benchmarks.choose.run import ChoosePlan
    from retinaface_edge.benchmarks.choose.run import choose as measure
    from retinaface_edge.benchmarks.latency.pinned_process import choose_cores
    from retinaface_edge.benchmarks.latency.rounds import OFFICIAL_FRAMES, RunLength
    from retinaface_edge.benchmarks.report.choose_plot import choose_plot
    from retinaface_edge.benchmarks.report.choose_text import choose_text
    from retinaface_edge.benchmarks.results import write_result
    from retinaface_edge.runtime.host.artifact_choice import store_pick

    from ..progress import bar

    # Everything that can be wrong is read before minutes are spent on measuring.
    _check(options)
    bundles, cores = _bundles(options.bundles), choose_cores(options.cores)
    budget_ms, frame_size = _budget(options, bundles, len(cores))
    with execution(options) as how:
        dataset, reference = _dataset(options, bundles, how)
        plan = ChoosePlan(
            bundles=bundles,
            patterns=options.artifact or ["*"],
            dataset=dataset,
            frames=_frames(dataset, frame_size, options.limit),
            cores=cores,
            length=RunLength(frames=options.frames or OFFICIAL_FRAMES, quick=options.quick),
            budget_ms=budget_ms,
            least_face_px=options.least_face,
            reference=reference,
        )
        result = measure(plan, how, say, bar)
    print(choose_text(result))
    if options.json:
        write_result(options.json, result)
    tables_as_csv(options, result)
    if options.plot:
        write_atomic(options.plot, choose_plot(result))
    picked = result.recommendation
    if picked.bundle is None or picked.artifact is None:
        return FAILED
    if options.store:
        bundle, artifact = bundles[picked.bundle], picked.artifact
        stored = store_pick(bundle, artifact.backend.value, artifact.precision.value)
        hint = f"; run it with --size {bundle.spec.width}x{bundle.spec.height}" if len(bundle.sizes) > 1 else ""
        print(f"stored in {stored}{hint}")
    return GOOD


def _check(options: argparse.Namespace) -> None:
    """Options that contradict each other, and files that cannot be written."""
    from retinaface_edge.benchmarks.errors import MeasurementError

    if options.reference and not options.images:
        raise MeasurementError("--reference labels the pictures of --images; annotated sets have labels already")
    if options.target and options.frame_size:
        raise MeasurementError(f"--target {options.target} sets the size of the frames; leave out --frame-size")
    for target in (options.json, options.plot):
        if target and not target.absolute().parent.is_dir():
            raise MeasurementError(f"{target} cannot be written: there is no folder {target.parent}; make it first")


def _bundles(paths: Sequence[Path]) -> dict[str, Bundle]:
    """The bundles by the names of their folders, by their whole paths where names repeat.

    One of several input sizes is as many candidates, each with its size behind the name.
    """
    from retinaface_edge.benchmarks.errors import MeasurementError

    names = [path.absolute().name for path in paths]
    named = names if len(set(names)) == len(names) else [str(path) for path in paths]
    if len(set(named)) != len(named):
        raise MeasurementError("a bundle is given twice; name each once")
    loaded = {name: Bundle.load(path) for name, path in zip(named, paths, strict=True)}
    return {
        f"{name} {width}x{height}" if len(bundle.sizes) > 1 else name: bundle.at(width, height)
        for name, bundle in loaded.items()
        for width, height in bundle.sizes
    }


def _budget(options: argparse.Namespace, bundles: Mapping[str, Bundle], cores: int) -> tuple[float, tuple[int, int]]:
    """Milliseconds that nine of ten calls must keep to, and the size of the frames: the largest input's if not told."""
    from retinaface_edge.benchmarks.errors import MeasurementError

    inputs = ((bundle.spec.width, bundle.spec.height) for bundle in bundles.values())
    largest = options.frame_size or max(inputs, key=lambda side: side[0] * side[1])
    if options.budget_ms is not None:
        return options.budget_ms, largest
    target, _ = choose_target(this_processor())
    budget = read_budget(options.target or target.budget or REAL_TIME)
    if options.target and budget.cores != cores:
        raise MeasurementError(f"{budget.name} is for {budget.cores} core, not {cores}; leave out --cores")
    return budget.milliseconds, (budget.width, budget.height) if options.target else largest


def _dataset(
    options: argparse.Namespace, bundles: Mapping[str, Bundle], execution: Execution
) -> tuple[Dataset, str | None]:
    """The annotated set, or pictures that the reference labels and the reference's name."""
    from retinaface_edge.benchmarks.accuracy.datasets import read_boxes
    from retinaface_edge.benchmarks.accuracy.wider_files import read_wider
    from retinaface_edge.benchmarks.choose.accuracy import labelled_by
    from retinaface_edge.benchmarks.inference.measurement import read_set

    if options.boxes:
        return read_boxes(options.boxes), None
    if options.widerface:
        return read_wider(options.widerface), None
    name, bundle = next(iter(bundles.items()))
    if options.reference:
        name, bundle = options.reference.absolute().name, Bundle.load(options.reference)
    return labelled_by(bundle, name, read_set(options.images, warn=say), execution), name


def _frames(dataset: Dataset, frame_size: tuple[int, int], limit: int) -> list[Frame]:
    from retinaface_edge.benchmarks.latency.frames import camera_frames

    return camera_frames([picture.path for picture in dataset.pictures], *frame_size, limit)


def add_choose(verbs: Verbs) -> None:
    """Add the verb and its arguments."""
    summary, example = "compare bundles on this machine and recommend one", "choose small large --images photos"
    verb = add_verb(verbs, "choose", choose, summary, example, extra="bench")
    verb.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    pictures = verb.add_mutually_exclusive_group(required=True)
    pictures.add_argument("--boxes", type=Path, metavar="FILE", help="annotated set, as for eval")
    pictures.add_argument("--widerface", type=Path, metavar="DIR", help="WIDER FACE: WIDER_val and ground_truth")
    pictures.add_argument("--images", type=Path, metavar="DIR", help="pictures without labels: measure agreement")
    verb.add_argument(
        "--reference",
        type=Path,
        metavar="BUNDLE",
        help="bundle whose FP32 artifact labels --images (default: the first bundle)",
    )
    budget = verb.add_mutually_exclusive_group()
    budget.add_argument(
        "--target", choices=BUDGETS, help="budget that nine in ten calls must meet (default: this machine's)"
    )
    budget.add_argument("--budget-ms", type=milliseconds, metavar="X", help="the same in milliseconds")
    verb.add_argument(
        "--artifact", action="append", metavar="PATTERN", help="only these artifacts, for instance '* int8'"
    )
    verb.add_argument("--cores", type=positive, default=1, metavar="N", help="cores and threads (default: 1)")
    verb.add_argument("--limit", type=positive, default=32, metavar="N", help="pictures used as frames (default: 32)")
    verb.add_argument(
        "--frame-size", type=size, metavar="WxH", help="size of the frames (default: that of the largest input)"
    )
    verb.add_argument(
        "--least-face",
        type=positive,
        default=10,
        metavar="PX",
        help="count faces of this size and larger (default: 10)",
    )
    length = verb.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="take a few seconds; not an official run")
    length.add_argument("--frames", type=positive, metavar="N", help="frames per artifact (official: 1024, or 60 s)")
    verb.add_argument("--store", action="store_true", help="make the pick the default of its bundle on this machine")
    verb.add_argument("--plot", type=Path, metavar="FILE", help="plot the Pareto front (SVG)")
    verb.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    add_csv(verb)
    add_running(verb)
