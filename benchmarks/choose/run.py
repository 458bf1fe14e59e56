"""Measures artifacts of several bundles side by side: accuracy on one set, latency in one interleaved run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.bundle.provenance import facts

from ..accuracy.datasets import Dataset
from ..accuracy.protocol import LEAST_FACE_PX
from ..environment import describe_machine, disturbances
from ..errors import MeasurementError
from ..inference.measurement import Execution
from ..latency.cold_start import measure_cold_start
from ..latency.pinned_process import run_pinned
from ..latency.result import Absent, ColdStart, FrameSet, RunnerKind, RunSummary
from ..latency.rounds import Measurements, RunLength, measure_latency
from ..latency.run import digest_of_frames
from ..latency.runners import Frame, Runner, runners_of
from ..latency.summary import latency_of
from ..linux import require_psutil
from ..results import FORMAT_VERSION
from ..versions import environment
from .accuracy import Measured, accuracy_of
from .front import MoreAccurate, recommend, with_front
from .result import Candidate, ChooseResult, ComparedBundle

Progress = Callable[[Iterable[int]], Iterable[int]]
Stage = Callable[[str], None]


@dataclass(frozen=True)
class ChoosePlan:
    """What to measure: `bundles` by name, their artifacts that match one of `patterns`.

    Accuracy is on `dataset`, latency on `frames` (uint8 BGR, all of one size), with as many threads as `cores`.
    `reference` names what labelled the set, None where it was annotated.
    """

    bundles: Mapping[str, Bundle]
    patterns: Sequence[str]
    dataset: Dataset
    frames: Sequence[Frame]
    cores: Sequence[int]
    length: RunLength
    budget_ms: float
    least_face_px: float = LEAST_FACE_PX
    reference: str | None = None


def choose(
    plan: ChoosePlan, execution: Execution, stage: Stage = lambda text: None, progress: Progress = iter
) -> ChooseResult:
    """Measure a plan. `stage` is called with each step that begins, `progress` wraps the rounds of the latency run.

    Raises `MeasurementError` when nothing can be measured.
    """
    require_psutil()
    owners, runners, absent = _runners(plan)
    if not runners:
        reasons = "; ".join(f"{entry.name}: {entry.reason}" for entry in absent)
        raise MeasurementError(f"no artifact of these bundles can run here ({reasons})")
    machine = describe_machine(plan.cores)
    stage(f"time {len(runners)} artifacts of {len(plan.bundles)} bundles, {plan.length.name} run")
    timed = run_pinned(measure_latency, runners, plan.frames, plan.length, plan.cores, progress, cores=plan.cores)
    present = [runner for runner in runners if runner.name in timed.times]
    stage("cold start and memory, each in a process of its own")
    colds = {
        runner.name: run_pinned(measure_cold_start, runner, plan.frames[0], plan.cores, cores=plan.cores)
        for runner in present
    }
    artifacts = {
        name: [str(runner.artifact) for runner in present if owners[runner.name] == name] for name in plan.bundles
    }
    stage(f"accuracy on {plan.dataset.name}")
    accuracy = accuracy_of(plan.bundles, artifacts, plan.dataset, execution, plan.least_face_px)
    clock = partial(_candidate, timed, accuracy, len(plan.cores) == 1)
    candidates = with_front([clock(owners[runner.name], runner, colds[runner.name]) for runner in present])
    beyond = max(timed.beyond, *(cold.threads_beyond_cores or 0 for cold in colds.values()))
    height, width = plan.frames[0].shape[:2]
    return ChooseResult(
        kind="choose",
        format_version=FORMAT_VERSION,
        environment=environment(),
        bundles=tuple(_described(name, bundle) for name, bundle in plan.bundles.items()),
        dataset=accuracy.first.dataset,
        images=accuracy.first.images,
        scale=accuracy.first.scale,
        frames=FrameSet(len(plan.frames), width, height, digest_of_frames(plan.frames)),
        run=RunSummary(plan.length.name, len(timed.yardstick), timed.use.seconds),
        machine=machine,
        machine_use=timed.use,
        budget_ms=plan.budget_ms,
        candidates=candidates,
        recommendation=recommend(candidates, plan.budget_ms, _more_accurate(accuracy)),
        reference=plan.reference,
        warnings=(*disturbances(machine, timed.use, timed.steady, beyond), *accuracy.warnings()),
        absent=(*absent, *timed.absent),
    )


def _runners(plan: ChoosePlan) -> tuple[dict[str, str], list[Runner], list[Absent]]:
    """The bundle of each runner by the runner's name, the runners, and what cannot run here."""
    owners: dict[str, str] = {}
    runners: list[Runner] = []
    absent: list[Absent] = []
    for name, bundle in plan.bundles.items():
        present, missing = runners_of(bundle, plan.patterns, RunnerKind.ARTIFACT, f"{name} ")
        owners.update(dict.fromkeys((runner.name for runner in present), name))
        runners += present
        absent += missing
    return owners, runners, absent


def _candidate(
    timed: Measurements, accuracy: Measured, on_one_core: bool, bundle: str, runner: Runner, cold: ColdStart
) -> Candidate:
    assert runner.artifact is not None, "runners_of gives artifacts"
    latency = latency_of(timed.times[runner.name], timed.work[runner.name])
    ap = accuracy.row(bundle, str(runner.artifact)).ap[accuracy.setting]
    if ap is None:
        raise MeasurementError("no annotated face counts on these pictures; lower --least-face, or give other pictures")
    return Candidate(
        bundle=bundle,
        artifact=runner.artifact,
        ms=latency.cpu_ms if on_one_core else latency.p50_ms,
        p50_ms=latency.p50_ms,
        p90_ms=latency.p90_ms,
        ap=ap,
        size_bytes=runner.size_bytes,
        first_faces_ms=cold.first_faces_ms,
        peak_memory_bytes=cold.peak_memory_bytes,
    )


def _described(name: str, bundle: Bundle) -> ComparedBundle:
    known, spec = facts(bundle), bundle.spec
    return ComparedBundle(name, known.digest, known.detector, known.licence, (spec.width, spec.height))


def _more_accurate(accuracy: Measured) -> MoreAccurate:
    return lambda a, b: accuracy.better((a.bundle, str(a.artifact)), (b.bundle, str(b.artifact)))
