"""Result of `cost`: counts of artifacts on cores, as frozen records; versioned JSON, read strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Literal

from retinaface_edge.runtime.io.atomic import write_whole
from retinaface_edge.runtime.records import from_json, to_json

from ..inference.network_under_test import MeasurementError
from .attribution import Kernel

FORMAT_VERSION = 1


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
    format_version: int
    bundle_digest: str
    input_digest: str
    tools: Mapping[str, str]
    models: Mapping[str, str]
    artifacts: tuple[ArtifactCost, ...]


def write_cost(path: Path, result: CostResult) -> None:
    """Write a result as JSON, whole or not at all."""
    write_whole(path, json.dumps(to_json(result), ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def read_cost(path: Path) -> CostResult:
    """Read what `write_cost` wrote. Raises `MeasurementError`, or `RecordError` naming the field that is wrong."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MeasurementError(f"{path} is no readable JSON ({error}); give a file that cost --json wrote") from error
    if not isinstance(content, dict) or content.get("kind") != "cost":
        raise MeasurementError(f"{path} is no result of cost; give a file that cost --json wrote")
    if content.get("format_version") != FORMAT_VERSION:
        raise MeasurementError(
            f"{path} has format {content.get('format_version')!r}, this version reads {FORMAT_VERSION}; count again"
        )
    return from_json(CostResult, content)
