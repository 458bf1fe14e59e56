"""What `bench` measures, as it is written to files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.artifact import ArtifactId

from ..environment import Machine, MachineUse
from ..results import BundleOrigin
from ..stats.bootstrap import Ratio

MICROSECONDS = 1e6


class RunnerKind(str, Enum):
    """Where a runner comes from: the bundle under test, the bundle it is compared with, or another project."""

    ARTIFACT = "artifact"
    BASELINE = "baseline"
    COMPETITOR = "competitor"


@dataclass(frozen=True)
class Samples:
    """Microseconds before, in and after the network, for every call in the order in which they were made."""

    pre_us: tuple[int, ...]
    inference_us: tuple[int, ...]
    post_us: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.pre_us) == len(self.inference_us) == len(self.post_us) > 0:
            raise ValueError("pre_us, inference_us and post_us must have one entry for each call, and one at least")

    @classmethod
    def of_seconds(cls, phases: NDArray[np.float64]) -> Samples:
        """From seconds, (calls, 3)."""
        return cls(*(as_microseconds(phase) for phase in phases.T))

    def call_seconds(self) -> NDArray[np.float64]:
        """Seconds of whole calls, (calls,)."""
        return np.asarray(np.sum([self.pre_us, self.inference_us, self.post_us], axis=0) / MICROSECONDS)


@dataclass(frozen=True)
class Latency:
    """From frame to faces, in milliseconds by the wall clock; `cpu_…` in processor time of all threads.

    `p50_low_ms` and `p50_high_ms` are the 95 % confidence interval of the median. Percentiles are by nearest rank: each
    is a time that was measured. Phases are medians of their own, so their sum is not exactly the median of the whole.
    """

    p50_ms: float
    p50_low_ms: float
    p50_high_ms: float
    p90_ms: float
    p99_ms: float
    best_ms: float
    pre_ms: float
    inference_ms: float
    post_ms: float
    cpu_ms: float
    cpu_inference_ms: float
    frames_per_second: float


@dataclass(frozen=True)
class ColdStart:
    """What a runner costs in a fresh process.

    `first_faces_ms` counts from before the backend is imported to the first faces. `peak_memory_bytes` is of the whole
    process, Python and NumPy included. `working_threads` did at least a twentieth of the work; `threads_beyond_cores`
    may run elsewhere than on the measured cores.
    """

    first_faces_ms: float
    working_threads: int
    peak_memory_bytes: int | None = None
    threads_beyond_cores: int | None = None


@dataclass(frozen=True)
class Agreement:
    """How near a runner's faces are to those of ONNX Runtime FP32, over all frames.

    Of the faces that match by an IoU of 0.5 the largest differences of scores and of box corners; of all faces
    `drift_percent`, 100 · (1 − 2 · Σ IoU / (faces of both)).
    """

    missed_faces: int
    score_difference: float
    corner_difference_px: float
    drift_percent: float


@dataclass(frozen=True)
class RunnerResult:
    """One runner: its times, costs and faces.

    `artifact` is set where it runs an artifact of a bundle. `precision` is what it computes in. `size_bytes` is 0 where
    it has no files of its own, and `digest` is SHA-256 over them. `share_of_peak` is `gmac_per_second` over what the
    cores can do in that precision. `to_reference` is its median over that of ONNX Runtime FP32.
    """

    name: str
    kind: RunnerKind
    backend: str
    precision: str
    size_bytes: int
    faces: int
    latency: Latency
    cold_start: ColdStart
    samples: Samples
    cpu_samples: Samples
    artifact: ArtifactId | None = None
    digest: str | None = None
    gmac_per_second: float | None = None
    share_of_peak: float | None = None
    to_reference: Ratio | None = None
    cpu_to_reference: Ratio | None = None
    agreement: Agreement | None = None


@dataclass(frozen=True)
class MeshCost:
    """A frame with meshes against the same frame without. Milliseconds are medians by the wall clock.

    `ratio` is with over without, `ratio_to_plain` with over a bundle that has no dense branch; on one core in processor
    time. `branch_us` is one batch through the branch's network, as it runs between frames.
    """

    artifact: ArtifactId
    faces: int
    without_ms: float
    with_ms: float
    branch_us: float
    ratio: Ratio
    plain_ms: float | None = None
    ratio_to_plain: Ratio | None = None


@dataclass(frozen=True)
class Absent:
    """A runner that cannot run here, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class FrameSet:
    """The frames that all runners got: how many, their size in pixels, and SHA-256 over their pixels."""

    count: int
    width: int
    height: int
    digest: str


@dataclass(frozen=True)
class RunSummary:
    """How long it was measured: an official run (1,024 frames or 60 s per runner), a short or a quick one."""

    name: Literal["official", "short", "quick"]
    rounds: int
    seconds: float


@dataclass(frozen=True)
class ComputePeak:
    """The most that the measured cores were seen to do, in 10⁹ multiply–accumulates per second."""

    fp32_gmac_per_second: float
    int8_gmac_per_second: float | None = None

    def of(self, precision: str) -> float | None:
        """The peak in a precision, if it was measured."""
        return {"fp32": self.fp32_gmac_per_second, "int8": self.int8_gmac_per_second}.get(precision)

    def better(self, other: ComputePeak) -> ComputePeak:
        """The higher of each: a disturbed measurement is too low and never too high."""
        int8 = [p.int8_gmac_per_second for p in (self, other) if p.int8_gmac_per_second is not None]
        return ComputePeak(max(self.fp32_gmac_per_second, other.fp32_gmac_per_second), max(int8, default=None))


@dataclass(frozen=True)
class BenchResult:
    """Everything that one `bench` measured. `input_px` is (width, height) of the network's input.

    `machine_use` is what the machine did meanwhile. `yardstick_us` is a fixed piece of work, timed once per round.
    """

    kind: Literal["bench"]
    format_version: Literal[2]
    environment: Mapping[str, str]
    bundle: BundleOrigin
    input_px: tuple[int, int]
    frames: FrameSet
    run: RunSummary
    machine: Machine
    machine_use: MachineUse
    peak: ComputePeak
    runners: tuple[RunnerResult, ...]
    yardstick_us: tuple[int, ...]
    warnings: tuple[str, ...] = ()
    absent: tuple[Absent, ...] = ()
    meshes: tuple[MeshCost, ...] = ()
    multiply_accumulates: int | None = None

    def __post_init__(self) -> None:
        if min(self.yardstick_us, default=0) <= 0:
            raise ValueError("yardstick_us must have one positive entry for each round")
        for runner in self.runners:
            if max(len(runner.samples.pre_us), len(runner.cpu_samples.pre_us)) > len(self.yardstick_us):
                raise ValueError(f"{runner.name} has more samples than there were rounds, {len(self.yardstick_us)}")

    def runner(self, name: str) -> RunnerResult:
        """The runner of that name. Raises `KeyError` for any other."""
        return {runner.name: runner for runner in self.runners}[name]

    def artifacts(self) -> tuple[RunnerResult, ...]:
        """The runners that are artifacts of the bundle."""
        return tuple(runner for runner in self.runners if runner.kind is RunnerKind.ARTIFACT)

    def call_seconds(self, runner: RunnerResult) -> NDArray[np.float64]:
        """Seconds of every whole call of a runner, (calls,), by the clock that calls are compared by.

        On one core that is processor time, which other programs' turns do not add to. On several it is the wall clock:
        waiting for each other is part of the price.
        """
        return (runner.cpu_samples if len(self.machine.cores) == 1 else runner.samples).call_seconds()

    def yardstick_seconds(self) -> NDArray[np.float64]:
        """Seconds of the fixed piece of work in every round, (rounds,)."""
        return np.array(self.yardstick_us, np.float64) / MICROSECONDS


def as_microseconds(seconds: Iterable[float]) -> tuple[int, ...]:
    """Rounded to whole microseconds."""
    return tuple(round(value * MICROSECONDS) for value in seconds)
