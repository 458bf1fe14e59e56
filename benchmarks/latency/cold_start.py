"""Cold start of a runner, in a process of its own: time to its first faces, memory, and working threads."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..linux import peak_memory_bytes, thread_seconds, threads_beyond
from .result import ColdStart
from .runners import Frame, Runner

SECONDS, BUSY_SHARE = 0.3, 0.05


def measure_cold_start(runner: Runner, frame: Frame, cores: Sequence[int]) -> ColdStart:
    """Load and run; call it in a fresh process pinned to `cores`. Raises what loading raises."""
    begin = time.perf_counter()
    loaded = runner.load(len(cores))
    loaded.detect(frame)
    seconds = time.perf_counter() - begin
    before, until = thread_seconds(), time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        loaded.detect(frame)
    worked = [after - before.get(thread, 0.0) for thread, after in thread_seconds().items()]
    busy = sum(spent > BUSY_SHARE * sum(worked) for spent in worked)
    return ColdStart(seconds * 1e3, busy, peak_memory_bytes(), threads_beyond(cores))
