"""The verb `bench`: the speed and cost of every artifact on this machine, and whether they are good enough."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.errors import ImageError
from retinaface_edge.runtime.host.targets import BUDGETS, Budget, read_budget
from retinaface_edge.runtime.io.atomic import write_atomic

from ..arguments import Verbs, add_verb, percent, positive, size
from ..exit_codes import FAILED, GOOD
from ..progress import say
from .options import add_bundle_size, add_csv, bundle_of, tables_as_csv

if TYPE_CHECKING:
    from retinaface_edge.benchmarks.gates.gate import Gate, Outcome
    from retinaface_edge.benchmarks.latency.result import Absent, BenchResult
    from retinaface_edge.benchmarks.latency.runners import Runner

MAX_DRIFT_PERCENT, MAX_REGRESSION_PERCENT = 10.0, 5.0
SCENES = 16


def bench(options: argparse.Namespace) -> int:
    """`bench`: frame in to faces out, all artifacts in one measurement."""
    from retinaface_edge.benchmarks.gates.gate import failures, junit, read_gate
    from retinaface_edge.benchmarks.gates.sufficiency import shortfalls
    from retinaface_edge.benchmarks.latency.fastest_artifact import pick
    from retinaface_edge.benchmarks.latency.pinned_process import choose_cores
    from retinaface_edge.benchmarks.latency.result import BenchResult
    from retinaface_edge.benchmarks.latency.rounds import OFFICIAL_FRAMES, RunLength
    from retinaface_edge.benchmarks.latency.run import BenchPlan
    from retinaface_edge.benchmarks.latency.run import bench as measure
    from retinaface_edge.benchmarks.report.bench_text import bench_markdown, bench_text
    from retinaface_edge.benchmarks.report.text import gate_text
    from retinaface_edge.benchmarks.results import read_result, write_result
    from retinaface_edge.runtime.host.artifact_choice import store_pick

    from ..progress import bar

    # Everything that can be wrong is read before minutes are spent on measuring.
    _check(options)
    bundle, cores = bundle_of(options), choose_cores(options.cores)
    budget = _budget(options, bundle, len(cores))
    gate = read_gate(_gate_file(options.gate)) if options.gate != "none" else None
    since = options.baseline and not options.baseline.is_dir()
    old = read_result(options.baseline, BenchResult) if since else None
    runners, absent = _runners(options, bundle)
    length = RunLength(frames=options.frames or OFFICIAL_FRAMES, quick=options.quick)
    plan = BenchPlan(bundle, runners, _frames(options, bundle), cores, length, absent)

    result = measure(plan, say, bar)
    print(bench_text(result))
    outcomes = _outcomes(options, result, budget, old, gate)
    lacking = shortfalls(gate, result, outcomes) if gate else []
    if options.json:
        write_result(options.json, result)
    tables_as_csv(options, result)
    if options.markdown:
        write_atomic(options.markdown, bench_markdown(result))
    if options.junit:
        write_atomic(options.junit, junit(outcomes, "bench", lacking))
    best = None
    if options.pick:
        best, why = pick(result, options.max_drift)
        print(f"pick: {best.name if best else 'none'}: {why}")
        if best and best.artifact and options.store:
            print(f"stored in {store_pick(bundle, best.artifact.backend.value, best.artifact.precision.value)}")
    if outcomes:
        print("\n".join(f"judged {outcome.rule.name}: {outcome.sentence}" for outcome in outcomes))
        print(gate_text(outcomes, lacking))
    return FAILED if failures(outcomes) or lacking or (options.pick and best is None) else GOOD


def _check(options: argparse.Namespace) -> None:
    """Options that contradict each other, and files that cannot be written."""
    from retinaface_edge.benchmarks.errors import MeasurementError

    if options.store and not options.pick:
        raise MeasurementError("--store stores what --pick finds; give both")
    if options.max_regression is not None and not options.baseline:
        raise MeasurementError("--max-regression needs --baseline: an older result, or an older bundle")
    for target in (options.json, options.markdown, options.junit):
        if target and not target.absolute().parent.is_dir():
            raise MeasurementError(f"{target} cannot be written: there is no folder {target.parent}; make it first")


def _budget(options: argparse.Namespace, bundle: Bundle, cores: int) -> Budget | None:
    from retinaface_edge.benchmarks.gates.speed import check_budget

    if not options.target:
        return None
    budget = read_budget(options.target)
    check_budget(budget, bundle.spec.width, bundle.spec.height, cores)
    return budget


def _runners(options: argparse.Namespace, bundle: Bundle) -> tuple[list[Runner], list[Absent]]:
    """The bundle's artifacts, a baseline bundle's and competitors, and those of them that cannot run here."""
    from retinaface_edge.benchmarks.gates.speed import BASELINE_PREFIX
    from retinaface_edge.benchmarks.latency.competitors import competitors_of
    from retinaface_edge.benchmarks.latency.result import RunnerKind
    from retinaface_edge.benchmarks.latency.runners import runners_of

    runners, absent = runners_of(bundle, options.artifact or ["*"])
    if options.baseline and options.baseline.is_dir():
        names = [runner.name for runner in runners]
        others, missing = runners_of(Bundle.load(options.baseline), names, RunnerKind.BASELINE, BASELINE_PREFIX)
        runners, absent = [*runners, *others], [*absent, *missing]
    if options.peers is not None:
        competitors, missing = competitors_of(bundle, options.peers or None)
        runners, absent = [*runners, *competitors], [*absent, *missing]
    return runners, absent


def _outcomes(
    options: argparse.Namespace, result: BenchResult, budget: Budget | None, old: BenchResult | None, gate: Gate | None
) -> list[Outcome]:
    """The judgements of target, baseline and gate that were asked for."""
    from retinaface_edge.benchmarks.gates.gate import apply_gate
    from retinaface_edge.benchmarks.gates.speed import budget_outcome, outcomes_beside, outcomes_since

    outcomes = [budget_outcome(result, budget)] if budget else []
    limit = MAX_REGRESSION_PERCENT if options.max_regression is None else options.max_regression
    if old:
        outcomes += outcomes_since(result, old, limit / 100.0)
    elif options.baseline:
        outcomes += outcomes_beside(result, limit / 100.0)
    return outcomes + (apply_gate(gate, result) if gate else [])


def add_bench(verbs: Verbs) -> None:
    """Add the verb and its arguments."""
    summary, example = "measure all artifacts", "bench bundle photos --target vga-30fps"
    verb = add_verb(verbs, "bench", bench, summary, example, extra="bench")
    verb.add_argument("bundle", type=Path)
    verb.add_argument(
        "images", type=Path, nargs="*", help="pictures or folders, used as frames (default: the demo's scenes)"
    )
    verb.add_argument("--limit", type=positive, default=32, metavar="N", help="use at most N pictures (default: 32)")
    verb.add_argument(
        "--frame-size", type=size, metavar="WxH", help="size of the frames (default: that of the network input)"
    )
    verb.add_argument("--cores", type=positive, default=1, metavar="N", help="cores and threads (default: 1)")
    add_bundle_size(verb)
    verb.add_argument(
        "--artifact", action="append", metavar="PATTERN", help="only these artifacts, for instance '* int8'"
    )
    length = verb.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="take a few seconds; not an official run")
    length.add_argument("--frames", type=positive, metavar="N", help="frames per artifact (official: 1024, or 60 s)")
    verb.add_argument("--peers", type=Path, nargs="?", const=False, metavar="DIR", help="also measure alternatives")
    verb.add_argument("--target", choices=BUDGETS, help="exit with 1 if the fastest p90 is above this budget")
    verb.add_argument("--baseline", type=Path, metavar="FILE|DIR", help="compare with an older result or bundle")
    verb.add_argument(
        "--max-regression", type=percent, metavar="X", help="slowdown allowed with --baseline (default: 5 %%)"
    )
    verb.add_argument("--gate", default="none", metavar="FILE", help="a gate file, peers, or none (the default)")
    verb.add_argument("--pick", action="store_true", help="name the fastest artifact within --max-drift")
    verb.add_argument(
        "--max-drift",
        type=percent,
        default=MAX_DRIFT_PERCENT,
        metavar="X",
        help="drift allowed with --pick (default: 10 %%)",
    )
    verb.add_argument("--store", action="store_true", help="make it the default of the bundle on this machine")
    verb.add_argument("--json", type=Path, metavar="FILE", help="write the result with all samples")
    add_csv(verb)
    verb.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    verb.add_argument("--junit", type=Path, metavar="FILE", help="write the outcome of all checks as JUnit XML")


def _gate_file(name: str) -> Path:
    from retinaface_edge.benchmarks import gates

    return Path(gates.__file__).parent / "peers_gate.json" if name == "peers" else Path(name)


def _frames(options: argparse.Namespace, bundle: Bundle) -> list[Any]:
    from retinaface_edge.benchmarks.latency.frames import camera_frames, fill

    width, height = options.frame_size or (bundle.spec.width, bundle.spec.height)
    if options.images:
        return camera_frames(options.images, width, height, options.limit, say)
    from retinaface_edge.calibration.dataset.image_set import CalibrationError
    from retinaface_edge.calibration.dataset.synthetic_scenes import scenes

    try:
        return fill(scenes(min(SCENES, options.limit)), width, height)
    except CalibrationError as error:
        raise ImageError(
            "no pictures to measure with; give photographs, or run: pip install 'retinaface-edge[demo]'"
        ) from error
