"""What a contestant costs once, in a process of its own: time to its first faces, memory, and working threads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .pinned_process import thread_seconds, threads_beyond
from .runners import Contestant, Frame

STATUS = Path("/proc/self/status")
SECONDS, BUSY = 0.3, 0.05


@dataclass(frozen=True)
class FirstResult:
    """Seconds from before the backend is imported to the first faces; the most memory in bytes; threads that worked.

    `peak_bytes` is of the whole process, Python and NumPy included, and None where the system does not tell; a thread
    counts from a twentieth of the work on. `beyond` threads may leave the cores.
    """

    seconds: float
    peak_bytes: int | None
    threads: int
    beyond: int


def first_result(contestant: Contestant, frame: Frame, cores: Sequence[int]) -> FirstResult:
    """Load and run; call it in a fresh process that is held to `cores`. Raises what loading raises."""
    begin = time.perf_counter()
    loaded = contestant.load(len(cores))
    loaded.detect(frame)
    seconds = time.perf_counter() - begin
    before, until = thread_seconds(), time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        loaded.detect(frame)
    worked = [after - before.get(task, 0.0) for task, after in thread_seconds().items()]
    busy = sum(spent > BUSY * sum(worked) for spent in worked)
    return FirstResult(seconds, _peak_bytes(), busy, threads_beyond(cores))


def _peak_bytes() -> int | None:
    """The high-water mark of this program's own memory; the kernel's resource usage would inherit the parent's."""
    try:
        lines = STATUS.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
