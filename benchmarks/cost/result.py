"""What `cost` counts, as it is written to files (`write_result`, `read_result`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from .attribution import Kernel


class Part(str, Enum):
    """What of a bundle's artifact was run: the detector on a frame, or the dense branch on one face."""

    DETECTOR = "detector"
    MESH = "mesh"


@dataclass(frozen=True)
class Work:
    """What a core does for a piece of a frame.

    `loads` and `stores` are accesses, a pair of registers being two; misses are of simulated caches; `dram_bytes`
    crossed the bus in both directions; `cycles` are LLVM's, all data in the L1 cache.
    """

    instructions: int
    cycles: int
    loads: int
    stores: int
    l1_misses: int
    l2_misses: int
    dram_bytes: int

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


NO_WORK = Work(0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class OperatorCost:
    """One operator of the network: its layer, the kernel that ran it, and its work."""

    name: str
    layer: str
    kernel: Kernel
    function: str
    macs: int
    work: Work


@dataclass(frozen=True)
class Estimate:
    """A range of milliseconds: estimated, not measured. `basis` says from what, and how far that was checked."""

    threads: int
    lowest_ms: float
    highest_ms: float
    basis: str


@dataclass(frozen=True)
class ArtifactCost:
    """One run of an artifact on a core. `total` is all of it; what `operators` lack belongs to no layer.

    `digest` is the SHA-256 of the TFLite file.
    """

    artifact: str
    part: Part
    core: str
    digest: str
    macs: int
    total: Work
    operators: tuple[OperatorCost, ...]
    estimates: tuple[Estimate, ...] = ()

    @property
    def name(self) -> str:
        """For instance `tflite int8, detector, cortex-a72`."""
        return f"{self.artifact}, {self.part.value}, {self.core}"

    @property
    def attributed(self) -> float:
        """The share of cycles that a layer of the network is known for."""
        return sum(operator.work.cycles for operator in self.operators) / max(self.total.cycles, 1)


@dataclass(frozen=True)
class CostResult:
    """What one call of `cost` found. `tools` are the versions that decide the counts, `models` LLVM's, core by core."""

    kind: Literal["cost"]
    format_version: Literal[2]
    bundle_digest: str
    input_digest: str
    tools: Mapping[str, str]
    models: Mapping[str, str]
    artifacts: tuple[ArtifactCost, ...]
