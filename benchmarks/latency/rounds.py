"""Single-stream latency: one frame at a time, all runners in every round, each after every other equally often.

The rules follow MLPerf Inference's single-stream scenario (arXiv 1911.02549, section 4): the next frame is given when
the faces of the last one are there, and an official run has at least 1,024 frames or lasts 60 seconds, per runner.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.errors import RetinaFaceEdgeError

from ..environment import MachineUse, Monitor
from ..errors import MeasurementError
from ..linux import threads_beyond
from .result import Absent
from .runners import Frame, LoadedRunner, Runner, now

OFFICIAL_FRAMES, OFFICIAL_SECONDS = 1024, 60.0
QUICK_SECONDS, QUICK_ROUNDS = 4.0, 16
PRE, INFERENCE, POST = range(3)
WINDOW, STABLE, LONGEST_WARM_UP = 5, 0.05, 12
"""Warm-up ends when the medians of two windows of rounds agree within 5 % for every runner, or after 12 windows."""
YARDSTICK_SIDE = 384

Phases = list[tuple[float, ...]]
"""Seconds before, in and after the network, by the wall clock and then in processor time."""
Boxes = list[NDArray[np.float64]]


@dataclass(frozen=True)
class RunLength:
    """How long to measure: `frames` per runner, or until it has been timed for `seconds`; or a quick look."""

    frames: int = OFFICIAL_FRAMES
    seconds: float = OFFICIAL_SECONDS
    quick: bool = False

    @property
    def name(self) -> Literal["official", "short", "quick"]:
        """`official`, `quick`, or `short`: fewer frames than an official run has."""
        return "quick" if self.quick else "official" if self.frames >= OFFICIAL_FRAMES else "short"


@dataclass(frozen=True, eq=False)
class Measurements:
    """What was measured, by the runner's name.

    `times` (rounds, 3) are seconds before, in and after the network by the wall clock, `work` the same in processor
    time, which does not pass while another program has the core. `precisions` names the runners that compute in another
    precision than they say. `boxes` and `scores` hold the faces of every frame. `yardstick` (rounds,) are the seconds
    of a fixed piece of work done in each round: it tells how fast the machine was just then. `absent` could not be
    loaded. `steady` says whether times settled during warm-up, `beyond` how many threads may leave the cores, `use`
    what else the machine did.
    """

    times: Mapping[str, NDArray[np.float64]]
    work: Mapping[str, NDArray[np.float64]]
    precisions: Mapping[str, str]
    boxes: Mapping[str, Boxes]
    scores: Mapping[str, list[NDArray[np.float64]]]
    yardstick: NDArray[np.float64]
    absent: tuple[Absent, ...]
    steady: bool
    beyond: int
    use: MachineUse


def measure_latency(
    runners: Sequence[Runner],
    frames: Sequence[Frame],
    length: RunLength,
    cores: Sequence[int],
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Measurements:
    """Time all runners on `frames` (uint8 BGR), with as many threads as there are `cores`.

    Call it in a process pinned to these cores, as `run_pinned` does. Raises `MeasurementError` when nothing can
    be loaded.
    """
    loaded, absent = _load(runners, len(cores))
    pictures = {True: [np.ascontiguousarray(frame[:, :, ::-1]) for frame in frames], False: list(frames)}
    names = list(loaded)
    found = {name: [loaded[name].detect(frame) for frame in pictures[loaded[name].rgb]] for name in names}
    # As calls are compared: one core's work in processor time, that of several by the clock.
    yardstick = _Yardstick(time.process_time if len(cores) == 1 else time.perf_counter)

    def round_(turn: int) -> tuple[dict[str, Phases], float]:
        frame = turn % len(frames)
        running = [name for name in names if name not in done]
        times = {
            name: _timed(loaded[name], pictures[loaded[name].rgb][frame])
            for name in (running[index] for index in order(len(running), turn))
        }
        return {name: times[name] for name in running}, yardstick.seconds()

    done: set[str] = set()
    gc.collect()
    gc.freeze()  # what is loaded stays: collecting it again and again is no part of a detector's work
    steady, seconds = _warm_up(round_)
    samples: dict[str, list[Phases]] = {name: [] for name in names}
    spent = dict.fromkeys(names, 0.0)
    yards = []
    rounds = max(QUICK_ROUNDS, int(QUICK_SECONDS / seconds)) if length.quick else length.frames
    monitor = Monitor(cores)
    for turn in progress(range(rounds)):
        times, yard = round_(turn)
        yards.append(yard)
        for name, phases in times.items():
            samples[name].append(phases)
            spent[name] += sum(phases[0])
        done = {name for name in names if spent[name] >= length.seconds and not length.quick}
        if len(done) == len(names):
            break
    use = monitor.stop()
    gc.unfreeze()
    return Measurements(
        times={name: np.array(samples[name])[:, 0] for name in names},
        work={name: np.array(samples[name])[:, 1] for name in names},
        precisions={name: loaded[name].precision for name in names if loaded[name].precision},
        boxes={name: [boxes for boxes, _ in found[name]] for name in names},
        scores={name: [scores for _, scores in found[name]] for name in names},
        yardstick=np.array(yards),
        absent=tuple(absent),
        steady=steady,
        beyond=threads_beyond(cores),
        use=use,
    )


def order(count: int, turn: int) -> list[int]:
    """In which order `count` runners take their turns in round `turn`: a balanced Latin square.

    Over 2·count rounds each comes at every place, and after every other, equally often (Williams, 1949), so that what
    one leaves in the caches slows all others alike.
    """
    zigzag = [(index + 1) // 2 if index % 2 else (count - index // 2) % count for index in range(count)]
    rotated = [(place + turn) % count for place in zigzag]
    return rotated if turn // max(count, 1) % 2 == 0 else rotated[::-1]


def _load(runners: Sequence[Runner], threads: int) -> tuple[dict[str, LoadedRunner], list[Absent]]:
    loaded: dict[str, LoadedRunner] = {}
    absent = []
    for runner in runners:
        try:
            loaded[runner.name] = runner.load(threads)
        except (RetinaFaceEdgeError, ImportError) as error:
            absent.append(Absent(runner.name, str(error)))
    if not loaded:
        reasons = "; ".join(f"{entry.name}: {entry.reason}" for entry in absent)
        raise MeasurementError(f"nothing here can be measured ({reasons or 'nothing was given'})")
    return loaded, absent


def _timed(runner: LoadedRunner, frame: Frame) -> Phases:
    begin = now()
    runner.detect(frame)
    moments = (begin, runner.clock.begin, runner.clock.end, now())
    return [tuple(after - before for before, after in pairwise(clock)) for clock in zip(*moments, strict=True)]


def _warm_up(round_: Callable[[int], tuple[dict[str, Phases], float]]) -> tuple[bool, float]:
    """Whether the times settled, and the seconds of one round."""
    before: NDArray[np.float64] | None = None
    seconds = 0.0
    for window in range(LONGEST_WARM_UP):
        turns = range(window * WINDOW, (window + 1) * WINDOW)
        rounds = [[sum(phases[0]) for phases in round_(turn)[0].values()] for turn in turns]
        # The best of a window: neighbours of this process disturb medians of five, and they never warm up.
        best = np.min(rounds, axis=0)
        seconds = float(np.median(np.sum(rounds, axis=1)))
        if before is not None and (np.abs(best / before - 1.0) <= STABLE).all():
            return True, seconds
        before = best
    return False, seconds


class _Yardstick:
    """A product of two float32 matrices by NumPy, the same everywhere and at all times."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._a, self._b = np.random.default_rng(0).random((2, YARDSTICK_SIDE, YARDSTICK_SIDE), np.float32)
        self._out = np.empty_like(self._a)

    def seconds(self) -> float:
        begin = self._clock()
        np.matmul(self._a, self._b, out=self._out)
        return self._clock() - begin
