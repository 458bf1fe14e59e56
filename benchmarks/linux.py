"""Processor time, memory, clock and temperature of this machine: the one place that reads Linux's /proc and /sys.

Accounts of time come from psutil. Governor and throttling are read from /sys, which psutil does not cover; so are the
clock, of which psutil has one entry per frequency policy rather than per core, and the thermal zones, which belong to
the processor while psutil's sensors include disks. What the system does not report is None.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import MeasurementError

CPUS = Path("/sys/devices/system/cpu")
THERMAL = Path("/sys/class/thermal")
PI_THROTTLED = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
STATUS = Path("/proc/self/status")
CPUINFO = Path("/proc/cpuinfo")
UNDER_VOLTAGE_CAPPED_THROTTLED_HOT = 0xF
"""The bits of a Raspberry Pi's `get_throttled` that speak of this moment; the others remember."""


@dataclass(frozen=True)
class Frequency:
    """The fastest clock of some cores, now and at most, in MHz."""

    now_mhz: float
    max_mhz: float | None = None


def usable_cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def governor(cores: Sequence[int]) -> str | None:
    """The frequency governors of `cores`, comma-separated where they differ."""
    found = {_read(CPUS / f"cpu{core}/cpufreq/scaling_governor") for core in cores} - {""}
    return ", ".join(sorted(found)) or None


def frequency(cores: Sequence[int]) -> Frequency | None:
    """The clock of `cores`; where there is no cpufreq, the fastest that /proc/cpuinfo lists."""
    now = [_read(CPUS / f"cpu{core}/cpufreq/scaling_cur_freq") for core in cores]
    most = [_read(CPUS / f"cpu{core}/cpufreq/cpuinfo_max_freq") for core in cores]
    if all(now) and all(most):
        return Frequency(max(map(float, now)) / 1e3, max(map(float, most)) / 1e3)
    lines = _read(CPUINFO).splitlines()
    clocks = [float(line.partition(":")[2]) for line in lines if line.lower().startswith("cpu mhz")]
    return Frequency(max(clocks)) if clocks else None


def temperature_c() -> float | None:
    """The hottest thermal zone, in °C."""
    read = [_read(zone / "temp") for zone in THERMAL.glob("thermal_zone*")]
    return max((int(value) / 1000.0 for value in read if value.lstrip("-").isdigit()), default=None)


def throttled() -> bool | None:
    """A Raspberry Pi's own report: under-voltage, capped clock, throttling or soft temperature limit, right now."""
    try:
        return bool(int(_read(PI_THROTTLED), 16) & UNDER_VOLTAGE_CAPPED_THROTTLED_HOT)
    except ValueError:
        return None


def throttle_count(cores: Sequence[int]) -> int | None:
    """How often `cores` were throttled for heat since boot."""
    counts = [_read(CPUS / f"cpu{core}/thermal_throttle/core_throttle_count") for core in cores]
    return sum(map(int, counts)) if all(counts) else None


def load_averages() -> tuple[float, float, float]:
    """Runnable processes over one, five and fifteen minutes."""
    one, five, fifteen = (round(load, 2) for load in os.getloadavg())
    return one, five, fifteen


def core_seconds(cores: Sequence[int]) -> tuple[float, float] | None:
    """Seconds since boot for which `cores` were busy, and for which a hypervisor withheld them."""
    times = _psutil().cpu_times(percpu=True)
    if max(cores) >= len(times) or not hasattr(times[0], "steal"):
        return None
    counted = [times[core] for core in cores]
    busy = sum(t.user + t.nice + t.system + t.irq + t.softirq for t in counted)
    return busy, sum(t.steal for t in counted)


def thread_seconds() -> dict[int, float]:
    """Processor time of every thread of this process so far, in the kernel's steps of usually 10 ms."""
    return {thread.id: thread.user_time + thread.system_time for thread in _psutil().Process().threads()}


def preemptions() -> int:
    """How often this process lost its core while it had work to do."""
    return int(_psutil().Process().num_ctx_switches().involuntary)


def threads_beyond(cores: Sequence[int]) -> int:
    """How many threads of this process may run elsewhere than on `cores`: none, in a process of `run_pinned`."""
    beyond = 0
    for thread in thread_seconds():
        try:
            beyond += not set(os.sched_getaffinity(thread)) <= set(cores)
        except ProcessLookupError:  # it has ended
            continue
    return beyond


def peak_memory_bytes() -> int | None:
    """The most memory that this program itself has had; `resource.getrusage` would inherit its parent's.

    Read by hand: psutil has the present size and not the largest.
    """
    fields = (line.split() for line in _read(STATUS).splitlines() if line.startswith("VmHWM:"))
    return next((int(kilobytes) * 1024 for _, kilobytes, *_ in fields), None)


def require_psutil() -> None:
    """Raise `MeasurementError` unless psutil is installed: better before a measurement than after it."""
    _psutil()


def _psutil() -> Any:
    try:
        import psutil
    except ImportError as error:
        raise MeasurementError("measuring needs psutil; run: pip install 'retinaface-edge[bench]'") from error
    return psutil


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
