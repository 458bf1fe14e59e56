"""Boards measured with `bench`, which calibrate the estimates for their kind."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retinaface_edge.runtime.artifact import Backend
from retinaface_edge.runtime.io.atomic import write_atomic
from retinaface_edge.runtime.io.untrusted import read_json
from retinaface_edge.runtime.records import RecordError, from_json, to_json

from ..errors import MeasurementError
from ..latency.result import BenchResult
from .cores import CORES, read_core
from .estimate import MARGIN, Fit, Point, fit, milliseconds
from .result import ArtifactCost, CostResult, Estimate, Part

LEAST_RANGE, RANGE_OF_ONE_POINT = 0.05, 0.15
"""Two points hide how much boards of a kind differ; one point shows no error at all."""


@dataclass(frozen=True)
class Board:
    """What one `bench` result on a board says: clock, threads, and the time of each artifact that was counted."""

    core: str
    gigahertz: float
    threads: int
    points: tuple[Point, ...]

    def fit(self) -> Fit:
        """The time per miss that the points have in common."""
        if len(self.points) > 1:
            return fit(self.points, self.gigahertz)
        return Fit(fit(self.points * 2, self.gigahertz).nanoseconds_per_miss, (RANGE_OF_ONE_POINT / MARGIN,))

    def estimate(self, cost: ArtifactCost) -> Estimate:
        """The range for counts of the same core, with as many threads as the board was measured with."""
        found = self.fit()
        counted = Point(cost.name, "", self.threads, 0.0, cost.total.cycles, cost.total.l1_misses)
        middle, share = (
            milliseconds(counted, self.gigahertz, found.nanoseconds_per_miss),
            max(found.range_share, LEAST_RANGE),
        )
        points = f"{len(self.points)} artifact{'s' if len(self.points) > 1 else ''}"
        basis = f"estimated, not measured, at {self.gigahertz:g} GHz; calibrated by bench on a board, {points}"
        return Estimate(self.threads, middle * (1.0 - share), middle * (1.0 + share), basis)


@dataclass(frozen=True)
class Boards:
    """The file of the boards that this user calibrated, by core."""

    kind: Literal["boards"]
    format_version: Literal[1]
    boards: Mapping[str, Board]


def default_file() -> Path:
    """Where calibrations are kept: `retinaface-edge/boards.json` in the user's data folder."""
    folder = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return folder / "retinaface-edge" / "boards.json"


def read_boards(path: Path) -> Mapping[str, Board]:
    """The boards in a file, none where there is no file. Raises `MeasurementError` when it is something else."""
    if not path.exists():
        return {}
    try:
        return from_json(Boards, read_json(path)).boards
    except (OSError, ValueError, RecordError) as error:
        raise MeasurementError(
            f"{path} is not a file of calibrated boards ({error}); remove it and calibrate again"
        ) from error


def store_board(path: Path, board: Board) -> None:
    """Keep a board in a file, in place of an earlier one with the same core."""
    boards = {**read_boards(path), board.core: board}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(to_json(Boards("boards", 1, boards)), indent=1) + "\n")


def board_of(result: CostResult, bench: BenchResult) -> Board:
    """Calibrate by what `bench` measured on a board of the same bundle that `result` counted.

    Raises `MeasurementError` when the bundles differ, the board has none of the known cores, or nothing matches.
    """
    if bench.bundle.digest != result.bundle_digest:
        raise MeasurementError("the bench result is of another bundle; give the bundle that was measured on the board")
    core = next((name for name in CORES if read_core(name).part == bench.machine.processor), None)
    if core is None:
        known = ", ".join(f"{name} ({read_core(name).board})" for name in CORES)
        raise MeasurementError(
            f"the bench result is of {bench.machine.processor or 'an unknown processor'}, not of {known}"
        )
    times = {
        str(runner.artifact): runner.latency.inference_ms
        for runner in bench.artifacts()
        if runner.artifact and runner.artifact.backend is Backend.TFLITE
    }
    threads = len(bench.machine.cores)
    points = tuple(
        Point(cost.artifact, "bench", threads, times[cost.artifact], cost.total.cycles, cost.total.l1_misses)
        for cost in result.artifacts
        if cost.part is Part.DETECTOR and cost.core == core and cost.artifact in times
    )
    if not points:
        raise MeasurementError(f"the bench result times no TFLite artifact that was counted on {core}; count it too")
    clock = bench.machine.frequency
    megahertz = None if clock is None else clock.max_mhz or clock.now_mhz
    return Board(core, megahertz / 1e3 if megahertz else read_core(core).gigahertz, threads, points)
