"""What `choose` finds, as it is written to files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from retinaface_edge.runtime.artifact import ArtifactId

from ..accuracy.result import DatasetRecord
from ..environment import Machine, MachineUse
from ..latency.result import Absent, FrameSet, RunSummary
from ..results import ImageSet


@dataclass(frozen=True)
class ComparedBundle:
    """One bundle: its name in the result, its digest, which detector it is, and the licence of its weights."""

    name: str
    digest: str
    detector: str
    licence: str
    input_px: tuple[int, int]


@dataclass(frozen=True)
class Candidate:
    """One artifact of one bundle.

    `ms` is the median of a whole call, by the clock that candidates are compared by: processor time on one core, else
    the wall clock. `p50_ms` and `p90_ms` are by the wall clock. `ap` is in 0…1. `peak_memory_bytes` is of a process
    that runs it and nothing else. `on_front` says that no other candidate is as fast and as accurate, and better in
    one of the two.
    """

    bundle: str
    artifact: ArtifactId
    ms: float
    p50_ms: float
    p90_ms: float
    ap: float
    size_bytes: int
    first_faces_ms: float
    peak_memory_bytes: int | None = None
    on_front: bool = False

    @property
    def name(self) -> str:
        """For people and as the runner's name: `bundle openvino int8`."""
        return f"{self.bundle} {self.artifact}"


@dataclass(frozen=True)
class Recommendation:
    """The artifact to run, None where none keeps to the budget; and why."""

    bundle: str | None
    artifact: ArtifactId | None
    reason: str


@dataclass(frozen=True)
class ChooseResult:
    """Artifacts of several bundles, side by side on this machine.

    `reference` names what labelled the pictures, None where they were annotated; `budget_ms` is what nine of ten calls
    must keep to.
    """

    kind: Literal["choose"]
    format_version: Literal[2]
    environment: Mapping[str, str]
    bundles: tuple[ComparedBundle, ...]
    dataset: DatasetRecord
    images: ImageSet
    scale: str
    frames: FrameSet
    run: RunSummary
    machine: Machine
    machine_use: MachineUse
    budget_ms: float
    candidates: tuple[Candidate, ...]
    recommendation: Recommendation
    reference: str | None = None
    warnings: tuple[str, ...] = ()
    absent: tuple[Absent, ...] = ()

    def bundle(self, name: str) -> ComparedBundle:
        """The bundle of that name. Raises `KeyError` for any other."""
        return {bundle.name: bundle for bundle in self.bundles}[name]

    def front(self) -> tuple[Candidate, ...]:
        """The candidates on the front, the fastest first."""
        return tuple(sorted((c for c in self.candidates if c.on_front), key=lambda candidate: candidate.ms))
