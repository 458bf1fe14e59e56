"""Counts written by the plugin: blocks of code, intervals, and how often each block ran in each interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import MeasurementError

LINE_BYTES = 64


@dataclass(frozen=True)
class Block:
    """Instructions that always run together: their address and AArch64 machine code."""

    address: int
    code: bytes

    @property
    def instructions(self) -> int:
        """How many they are."""
        return len(self.code) // 4


@dataclass(frozen=True)
class Interval:
    """What happened from one boundary to the next. `boundary` is the address that began it, 0 for the frame's start.

    `loads` and `stores` count accesses: one of two registers is two. `last_level_misses` are lines read from DRAM,
    `lines_written` those written to it. `runs` gives for each block (its index in `Counts.blocks`) how often it ran.
    """

    boundary: int
    loads: int
    stores: int
    access_bytes: int
    l1_misses: int
    l2_misses: int
    last_level_misses: int
    lines_written: int
    runs: Mapping[int, int]

    @property
    def dram_bytes(self) -> int:
        """Bytes that crossed the bus to the memory, both ways."""
        return (self.last_level_misses + self.lines_written) * LINE_BYTES


@dataclass(frozen=True)
class Counts:
    """One counted frame. `library_address` is where the library of the kernels was loaded."""

    blocks: Sequence[Block]
    intervals: Sequence[Interval]
    library_address: int

    @property
    def instructions(self) -> int:
        """Of the whole frame."""
        return sum(
            self.blocks[block].instructions * times
            for interval in self.intervals
            for block, times in interval.runs.items()
        )


def read_counts(path: Path, library_address: int) -> Counts:
    """Read the plugin's file; its form is described in plugin.c. Raises `MeasurementError` if it is not whole."""
    blocks: list[Block] = []
    figures: list[list[int]] = []
    runs: dict[int, dict[int, int]] = {}
    rows = 0
    end: list[int] = []
    try:
        with path.open(encoding="ascii") as file:
            for line in file:
                kind, *fields = line.split()
                if kind == "block":
                    blocks.append(Block(int(fields[1]), bytes.fromhex(fields[3])))
                    _in_order(int(fields[0]), len(blocks) - 1)
                elif kind == "interval":
                    figures.append([int(field) for field in fields[1:]])
                    _in_order(int(fields[0]), len(figures) - 1)
                elif kind == "runs":
                    interval, block, times = map(int, fields)
                    runs.setdefault(interval, {})[block] = times
                    rows += 1
                elif kind == "end":
                    end = [int(field) for field in fields]
        intervals = [_interval(values, runs.get(index, {})) for index, values in enumerate(figures)]
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise MeasurementError(f"{path} is not a file of counts ({error}); count again") from error
    if end != [len(blocks), len(intervals), rows]:
        raise MeasurementError(f"{path} is incomplete: the counted program ended before its frame did; count again")
    return Counts(blocks, intervals, library_address)


def _interval(figures: Sequence[int], runs: Mapping[int, int]) -> Interval:
    boundary, loads, stores, access_bytes, l1, l2, last_level, written = figures
    return Interval(boundary, loads, stores, access_bytes, l1, l2, last_level, written, runs)


def _in_order(index: int, expected: int) -> None:
    if index != expected:
        raise ValueError(f"number {index} stands where {expected} should")
