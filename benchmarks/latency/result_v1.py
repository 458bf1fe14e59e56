"""Bench results as version 0.1 wrote them (format 1), read into today's types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from retinaface_edge.runtime.artifact import ArtifactId
from retinaface_edge.runtime.records import RecordError, from_json

from ..environment import NOT_TOLD, Machine, MachineUse
from ..linux import Frequency
from ..stats.bootstrap import Ratio
from .result import (
    Absent,
    Agreement,
    BenchResult,
    ColdStart,
    ComputePeak,
    FrameSet,
    Latency,
    MeasuredBundle,
    MeshCost,
    RunnerKind,
    RunnerResult,
    RunSummary,
    Samples,
)

BASELINE_PREFIX = "baseline "
Interval = tuple[float, float, float]
Phases = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class _Artifact:
    name: str
    backend: str
    precision: str
    bytes: int
    digest: str


@dataclass(frozen=True)
class _Run:
    name: Literal["official", "short", "quick"]
    rounds: int
    seconds: float


@dataclass(frozen=True)
class _During:
    seconds: float
    ours: float
    others: float | None
    stolen: float | None
    waited: float
    switched_away: int
    throttle_events: int | None
    throttled: bool | str
    temperature_c: float | str
    load: Interval


@dataclass(frozen=True)
class _Machine:
    architecture: str
    processor: str
    features: tuple[str, ...]
    cores: tuple[int, ...]
    cores_of_the_machine: int
    governor: str
    frequency_mhz: Mapping[str, float] | str
    temperature_c: float | str
    throttled: bool | str
    load: Interval
    libraries: Mapping[str, str]
    during: _During


@dataclass(frozen=True)
class _Peak:
    fp32: float
    int8: float | None


@dataclass(frozen=True)
class _Row:
    name: str
    kind: Literal["artifact", "baseline", "peer"]
    backend: str
    precision: str
    bytes: int
    milliseconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    best_ms: float
    p50_interval_ms: tuple[float, float]
    frames: int
    frames_a_second: float
    pre_ms: float
    inference_ms: float
    post_ms: float
    cpu_ms: float
    cpu_inference_ms: float
    first_result_ms: float
    peak_bytes: int | None
    threads: int
    gmacs: float | None
    share_of_peak: float | None
    faces: int
    to_reference: Interval | None
    cpu_to_reference: Interval | None
    missed: int | None = None
    score_difference: float | None = None
    corner_difference: float | None = None
    drift_percent: float | None = None


@dataclass(frozen=True)
class _Mesh:
    name: str
    faces: int
    without_ms: float
    with_ms: float
    ratio: Interval
    branch_microseconds: float


@dataclass(frozen=True)
class _Samples:
    microseconds: Mapping[str, Phases]
    processor_microseconds: Mapping[str, Phases]
    yardstick: tuple[int, ...]


@dataclass(frozen=True)
class _Bench:
    kind: Literal["bench"]
    format_version: Literal[1]
    environment: Mapping[str, str]
    artifacts: tuple[_Artifact, ...]
    bundle: MeasuredBundle
    input: str
    frames: FrameSet
    rule: _Run
    machine: _Machine
    peak_gmacs: _Peak
    multiply_accumulates: int | None
    warnings: tuple[str, ...]
    results: tuple[_Row, ...]
    absent: tuple[Absent, ...]
    samples: _Samples
    meshes: tuple[_Mesh, ...] = ()


def bench_from_v1(content: object) -> BenchResult:
    """Read format 1. Raises `RecordError` naming the first field that is wrong."""
    old = from_json(_Bench, content)
    digests = {artifact.name: artifact.digest for artifact in old.artifacts}
    try:
        width, height = map(int, old.input.split("x"))
        runners = tuple(_runner(row, old.samples, digests.get(row.name)) for row in old.results)
        meshes = tuple(_mesh(row) for row in old.meshes)
    except KeyError as error:
        raise RecordError(f"samples has no entry for {error}") from error
    except ValueError as error:
        raise RecordError(str(error)) from error
    return BenchResult(
        environment=old.environment,
        bundle=old.bundle,
        input_width=width,
        input_height=height,
        frames=old.frames,
        run=RunSummary(old.rule.name, old.rule.rounds, old.rule.seconds),
        machine=_machine(old.machine),
        machine_use=_use(old.machine.during),
        peak=ComputePeak(old.peak_gmacs.fp32, old.peak_gmacs.int8),
        runners=runners,
        yardstick_us=old.samples.yardstick,
        warnings=old.warnings,
        absent=old.absent,
        meshes=meshes,
        multiply_accumulates=old.multiply_accumulates,
    )


def _machine(old: _Machine) -> Machine:
    clock = old.frequency_mhz
    frequency = None if isinstance(clock, str) or "now" not in clock else Frequency(clock["now"], clock.get("most"))
    return Machine(
        architecture=old.architecture,
        features=old.features,
        cores=old.cores,
        machine_cores=old.cores_of_the_machine,
        load=old.load,
        processor=None if old.processor == NOT_TOLD else old.processor,
        governor=None if old.governor == NOT_TOLD else old.governor,
        frequency=frequency,
        temperature_c=None if isinstance(old.temperature_c, str) else old.temperature_c,
        throttled=None if isinstance(old.throttled, str) else old.throttled,
    )


def _use(old: _During) -> MachineUse:
    return MachineUse(
        seconds=old.seconds,
        own_share=old.ours,
        others_share=old.others,
        stolen_share=old.stolen,
        waiting_share=old.waited,
        preemptions=old.switched_away,
        load=old.load,
        throttle_events=old.throttle_events,
        throttled=None if isinstance(old.throttled, str) else old.throttled,
        temperature_c=None if isinstance(old.temperature_c, str) else old.temperature_c,
    )


def _runner(row: _Row, samples: _Samples, digest: str | None) -> RunnerResult:
    kind = RunnerKind.COMPETITOR if row.kind == "peer" else RunnerKind(row.kind)
    artifact = None if row.kind == "peer" else ArtifactId.parse(row.name.removeprefix(BASELINE_PREFIX))
    agreement = None
    if row.missed is not None and row.drift_percent is not None:
        score, corner = row.score_difference or 0.0, row.corner_difference or 0.0
        agreement = Agreement(row.missed, score, corner, row.drift_percent)
    return RunnerResult(
        name=row.name,
        kind=kind,
        backend=row.backend,
        precision=row.precision,
        size_bytes=row.bytes,
        faces=row.faces,
        latency=Latency(
            p50_ms=row.p50_ms,
            p50_low_ms=row.p50_interval_ms[0],
            p50_high_ms=row.p50_interval_ms[1],
            p90_ms=row.p90_ms,
            p99_ms=row.p99_ms,
            best_ms=row.best_ms,
            pre_ms=row.pre_ms,
            inference_ms=row.inference_ms,
            post_ms=row.post_ms,
            cpu_ms=row.cpu_ms,
            cpu_inference_ms=row.cpu_inference_ms,
            frames_per_second=row.frames_a_second,
        ),
        cold_start=ColdStart(row.first_result_ms, row.threads, row.peak_bytes),
        samples=Samples(*samples.microseconds[row.name]),
        cpu_samples=Samples(*samples.processor_microseconds[row.name]),
        artifact=artifact,
        digest=digest,
        gmac_per_second=row.gmacs,
        share_of_peak=row.share_of_peak,
        to_reference=Ratio(*row.to_reference) if row.to_reference else None,
        cpu_to_reference=Ratio(*row.cpu_to_reference) if row.cpu_to_reference else None,
        agreement=agreement,
    )


def _mesh(row: _Mesh) -> MeshCost:
    artifact, ratio = ArtifactId.parse(row.name), Ratio(*row.ratio)
    return MeshCost(artifact, row.faces, row.without_ms, row.with_ms, row.branch_microseconds, ratio)
