"""Measure all runners in one run, and make one result of it, with what is needed to trust it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from retinaface_edge.runtime.bundle.bundle import Bundle

from ..environment import describe_machine
from ..linux import require_psutil
from ..results import FORMAT_VERSION, BundleOrigin
from ..versions import environment
from .cold_start import measure_cold_start
from .compute_peak import measure_compute_peak
from .mesh_cost import frame_with_faces, mesh_costs
from .pinned_process import run_pinned
from .result import Absent, BenchResult, FrameSet, MeshCost, RunnerKind, RunSummary, as_microseconds
from .rounds import Measurements, RunLength, measure_latency
from .runners import Frame, Runner
from .summary import Conditions, summarise, warnings_of

MOST_MESH_ROUNDS = 128

Progress = Callable[[Iterable[int]], Iterable[int]]
Stage = Callable[[str], None]


@dataclass(frozen=True)
class BenchPlan:
    """What to measure: `runners` on `frames` (uint8 BGR, all of one size), each with as many threads as `cores`.

    `absent` are those already known not to run here.
    """

    bundle: Bundle
    runners: Sequence[Runner]
    frames: Sequence[Frame]
    cores: Sequence[int]
    length: RunLength
    absent: Sequence[Absent] = ()


def bench(plan: BenchPlan, stage: Stage = lambda text: None, progress: Progress = iter) -> BenchResult:
    """Measure a plan, in separate processes pinned to its cores.

    `stage` is called with each step that begins, `progress` wraps the rounds. Raises `MeasurementError` when nothing
    can be measured.
    """
    require_psutil()
    cores, frames, bundle = plan.cores, plan.frames, plan.bundle
    machine = describe_machine(cores)
    stage(f"measure the compute peak of core {', '.join(map(str, cores))}")
    peak = run_pinned(measure_compute_peak, cores, cores=cores)
    stage(f"time {len(plan.runners)} runners, {plan.length.name} run")
    measured = run_pinned(measure_latency, plan.runners, frames, plan.length, cores, progress, cores=cores)
    meshes = _meshes(plan, measured, stage)
    peak = peak.better(run_pinned(measure_compute_peak, cores, cores=cores))
    stage("cold start, memory and threads, each in a process of its own")
    present = [runner for runner in plan.runners if runner.name in measured.times]
    macs = bundle.multiply_accumulates
    conditions = Conditions(peak, macs, len(cores))
    runners = tuple(
        summarise(runner, measured, run_pinned(measure_cold_start, runner, frames[0], cores, cores=cores), conditions)
        for runner in present
    )
    height, width = frames[0].shape[:2]
    return BenchResult(
        kind="bench",
        format_version=FORMAT_VERSION,
        environment=environment(),
        bundle=BundleOrigin(bundle.manifest["digest"], bundle.manifest.get("provenance", {})),
        input_px=(bundle.spec.width, bundle.spec.height),
        frames=FrameSet(len(frames), width, height, digest_of_frames(frames)),
        run=RunSummary(plan.length.name, len(measured.yardstick), measured.use.seconds),
        machine=machine,
        machine_use=measured.use,
        peak=peak,
        runners=runners,
        yardstick_us=as_microseconds(measured.yardstick),
        warnings=tuple(warnings_of(machine, measured, runners)),
        absent=(*plan.absent, *measured.absent),
        meshes=tuple(meshes),
        multiply_accumulates=macs,
    )


def _meshes(plan: BenchPlan, measured: Measurements, stage: Stage) -> list[MeshCost]:
    """What meshes cost those artifacts of the bundle that were measured, on the frame with about five faces."""
    own = [r for r in plan.runners if r.kind is RunnerKind.ARTIFACT and r.name in measured.times]
    dense = {mesh.name for mesh in plan.bundle.meshes}
    artifacts = [r.artifact for r in own if r.artifact and str(r.artifact) in dense]
    if not artifacts:
        return []
    frame = frame_with_faces(plan.frames, [len(boxes) for boxes in measured.boxes[own[0].name]])
    if frame is None:
        stage("no frame shows a face, so what a mesh costs is not measured")
        return []
    stage(f"measure what meshes cost, {len(artifacts)} artifacts")
    rounds = min(MOST_MESH_ROUNDS, len(measured.yardstick))
    return run_pinned(mesh_costs, plan.bundle.path, artifacts, frame, len(plan.cores), rounds, cores=plan.cores)


def digest_of_frames(frames: Sequence[Frame]) -> str:
    """SHA-256 over the frames' shapes and pixels."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(repr(frame.shape).encode())
        digest.update(np.ascontiguousarray(frame).tobytes())
    return digest.hexdigest()
