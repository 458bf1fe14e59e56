"""The counting plugin, driven without QEMU: blocks, intervals, and its caches against a simulation in Python."""

from __future__ import annotations

import shutil
import subprocess
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from retinaface_edge.benchmarks.cost.emulator.counts import Counts, read_counts
from retinaface_edge.benchmarks.cost.emulator.user_space import PLUGIN_FLAGS
from retinaface_edge.benchmarks.errors import MeasurementError

LINE = 64
BOUNDARY, START, STOP = 0, 1, 2

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("plugin") / "driver"
    with resources.as_file(resources.files("retinaface_edge.benchmarks.cost.emulator")) as folder:
        flags = [flag for flag in PLUGIN_FLAGS if flag != "-shared"]
        sources = [str(folder / "plugin.c"), str(ROOT / "tests" / "c" / "plugin_driver.c")]
        subprocess.run(["gcc", *flags, "-I", str(folder), "-o", str(program), *sources], check=True)
    return program


def counted(driver: Path, folder: Path, commands: Sequence[str], caches: Sequence[tuple[int, int]] = ()) -> Counts:
    levels = [f"l{level}={size}:{ways}" for level, (size, ways) in enumerate(caches, start=1)]
    arguments = [str(driver), f"out={folder / 'counts.txt'}", *levels]
    subprocess.run(arguments, input="\n".join(commands), text=True, check=True)
    return read_counts(folder / "counts.txt", 0)


class SlowCaches:
    """Write-back caches, the line used last at the end of an ordered dictionary: a slow reading of the definition."""

    def __init__(self, caches: Sequence[tuple[int, int]]) -> None:
        self.ways = [ways for _, ways in caches]
        self.sets: list[list[OrderedDict[int, bool]]] = [
            [OrderedDict() for _ in range(size // LINE // ways)] for size, ways in caches
        ]
        self.misses = [0] * len(caches)
        self.written = 0

    def access(self, address: int, size: int, store: bool) -> None:
        for line in range(address // LINE, (address + size - 1) // LINE + 1):
            self._need(0, line, store)

    def _need(self, level: int, line: int, store: bool) -> None:
        if level == len(self.sets):
            return
        lines = self.sets[level][line % len(self.sets[level])]
        if line in lines:
            lines[line] = lines.pop(line) or store
            return
        self.misses[level] += 1
        self._put(level, line, store)
        self._need(level + 1, line, False)

    def _put(self, level: int, line: int, dirty: bool) -> None:
        if level == len(self.sets):
            self.written += 1
            return
        lines = self.sets[level][line % len(self.sets[level])]
        was_dirty = lines.pop(line, False)
        if len(lines) == self.ways[level]:
            oldest, write = lines.popitem(last=False)
            if write:
                self._put(level + 1, oldest, True)
        lines[line] = was_dirty or dirty


def accesses(seed: int, count: int) -> Iterator[tuple[int, int, bool]]:
    """Loads and stores that walk, jump, and cross the ends of lines."""
    random = np.random.default_rng(seed)
    address = 1 << 20
    for _ in range(count):
        address = int(random.integers(1 << 20, (1 << 20) + (1 << 13))) if random.random() < 0.3 else address + 24
        yield address, int(random.integers(0, 5)), bool(random.random() < 0.4)


@pytest.mark.parametrize("caches", [((512, 2), (2048, 4)), ((1024, 4), (2048, 2), (4096, 8)), ((256, 1),)])
@pytest.mark.parametrize("seed", range(4))
def test_the_caches_miss_and_write_back_as_the_definition_says(
    driver: Path, tmp_path: Path, caches: Sequence[tuple[int, int]], seed: int
) -> None:
    slow, commands = SlowCaches(caches), ["t 64 1", "m 0 4096"]
    warm_up, frame = list(accesses(seed, 500)), list(accesses(seed + 100, 2000))
    for address, log2, store in warm_up:
        slow.access(address, 1 << log2, store)
        commands.append(f"{'s' if store else 'l'} {address} {log2}")
    before, written = list(slow.misses), slow.written
    commands.append("m 1 0")
    for address, log2, store in frame:
        slow.access(address, 1 << log2, store)
        commands.append(f"{'s' if store else 'l'} {address} {log2}")
    (interval,) = counted(driver, tmp_path, [*commands, "m 2 0"], caches).intervals
    misses = [after - earlier for after, earlier in zip(slow.misses, before, strict=True)]
    assert interval.l1_misses == misses[0]
    assert interval.last_level_misses == misses[-1]
    if len(caches) > 1:
        assert interval.l2_misses == misses[1]
    assert interval.lines_written == slow.written - written > 0
    assert interval.loads == sum(not store for _, _, store in frame)
    assert interval.stores == sum(store for _, _, store in frame)
    assert interval.access_bytes == sum(1 << log2 for _, log2, _ in frame)


def test_blocks_are_counted_between_the_marks_and_cut_at_boundaries(driver: Path, tmp_path: Path) -> None:
    marks = ["m 0 4096", "t 64 3", "t 4096 2", "x 64", "x 4096", "o 9002", "m 1 0"]
    frame = ["x 64", "x 64", "l 100 3", "x 4096", "x 64", "s 100 3", "x 4096", "x 4096", "x 64"]
    counts = counted(driver, tmp_path, [*marks, *frame, "m 2 0", "x 64"])
    assert [interval.boundary for interval in counts.intervals] == [0, 4096, 4096, 4096]
    named = [{counts.blocks[b].address: n for b, n in interval.runs.items()} for interval in counts.intervals]
    assert named == [{64: 2}, {4096: 1, 64: 1}, {4096: 1}, {4096: 1, 64: 1}]
    assert [(i.loads, i.stores) for i in counts.intervals] == [(1, 0), (0, 1), (0, 0), (0, 0)]
    assert counts.instructions == 4 * 3 + 3 * 2


def test_the_same_code_translated_again_is_the_same_block(driver: Path, tmp_path: Path) -> None:
    counts = counted(driver, tmp_path, ["t 64 3", "m 1 0", "x 64", "t 64 3", "x 64", "t 64 2", "x 64", "m 2 0"])
    assert sorted((block.instructions, counts.intervals[0].runs[i]) for i, block in enumerate(counts.blocks)) == [
        (2, 1),
        (3, 2),
    ]


@pytest.mark.parametrize("argument", ["l1=100:3", "l1=4096", "l2=4096:2", "colour=red"])
def test_an_argument_that_makes_no_sense_is_refused(driver: Path, tmp_path: Path, argument: str) -> None:
    arguments = [str(driver), f"out={tmp_path / 'counts.txt'}", argument]
    result = subprocess.run(arguments, input="", text=True, capture_output=True)
    assert result.returncode == 3
    assert result.stderr.startswith("cost plugin: ")


def test_a_file_that_breaks_off_is_refused(driver: Path, tmp_path: Path) -> None:
    counted(driver, tmp_path, ["t 64 3", "m 1 0", "x 64", "m 2 0"])
    lines = (tmp_path / "counts.txt").read_text().splitlines(keepends=True)
    for kept in range(len(lines)):
        (tmp_path / "cut.txt").write_text("".join(lines[:kept]))
        with pytest.raises(MeasurementError, match=r"is incomplete|not a file of counts"):
            read_counts(tmp_path / "cut.txt", 0)
