"""The machine that a figure belongs to: what it is, what state it is in, and what disturbed it while it measured.

Read from Linux's /proc and /sys. Where a system does not tell something, it says so rather than guess.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from retinaface_edge.runtime.host.targets import FEATURES, this_processor

from .inference.network_under_test import environment

NOT_TOLD = "not told by this system"
CPUS = Path("/sys/devices/system/cpu")
THERMAL = Path("/sys/class/thermal")
PI_THROTTLED = Path("/sys/devices/platform/soc/soc:firmware/get_throttled")
IDENTITY = ("architecture", "processor", "features", "governor")
"""What must be the same in two results for their times to be compared."""
OTHERS_SHARE, WAITING_SHARE, SPREAD = 0.02, 0.02, 1.25
"""From these on a figure is called spoilt: others' share of our cores, our share of waiting, and p90 against p50."""


def describe_machine(cores: Sequence[int]) -> dict[str, Any]:
    """What decides the times of this machine, as plain values."""
    processor = this_processor()
    return {
        "architecture": processor.architecture,
        "processor": processor.model if processor.model != "unknown" else processor.part or NOT_TOLD,
        "features": sorted(processor.features & FEATURES),
        "cores": list(cores),
        "cores_of_the_machine": os.cpu_count(),
        "governor": _governor(cores),
        "frequency_mhz": _frequency(cores),
        "temperature_c": _temperature(),
        "throttled": _throttled(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "libraries": {key: value for key, value in environment().items() if key not in ("machine", "processor")},
    }


def unlike(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """In what two machines differ so that their times must not be compared, in words; empty if in nothing."""
    differing = [f"{key}: {a.get(key)} and {b.get(key)}" for key in IDENTITY if a.get(key) != b.get(key)]
    if len(a.get("cores", ())) != len(b.get("cores", ())):
        differing.append(f"cores used: {len(a.get('cores', ()))} and {len(b.get('cores', ()))}")
    return differing


class Monitor:
    """Watches `cores` from its making until `stop`."""

    def __init__(self, cores: Sequence[int]) -> None:
        self._cores = cores
        self._before = self._now()

    def stop(self) -> dict[str, Any]:
        """What happened: seconds, shares of the cores' time used by us, by others and withheld by a hypervisor.

        `waited` is the share of time in which we were not running though we had work. Shares are None where the system
        does not tell.
        """
        after = self._now()
        passed = {key: after[key] - value for key, value in self._before.items()}
        seconds = max(passed["seconds"], 1e-9)
        cores = len(self._cores) * seconds
        told = self._before["busy"] >= 0.0
        return {
            "seconds": seconds,
            "ours": passed["ours"] / cores,
            "others": max(passed["busy"] - passed["ours"], 0.0) / cores if told else None,
            "stolen": passed["stolen"] / cores if told else None,
            "waited": max(1.0 - passed["ours"] / seconds, 0.0),
            "switched_away": int(passed["switched"]),
            "throttle_events": int(passed["throttles"]) if after["throttles"] >= 0 else None,
            "throttled": _throttled(),
            "temperature_c": _temperature(),
            "load": [round(load, 2) for load in os.getloadavg()],
        }

    def _now(self) -> dict[str, float]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        busy, stolen = _core_seconds(self._cores)
        return {
            "seconds": time.perf_counter(),
            "ours": time.process_time(),
            "busy": busy,
            "stolen": stolen,
            "switched": usage.ru_nivcsw,
            "throttles": _throttle_count(self._cores),
        }


def warnings_of(machine: Mapping[str, Any], monitor: Mapping[str, Any], steady: bool, beyond: int) -> Iterator[str]:
    """What spoils the figures, in plain sentences."""
    if beyond:
        yield f"{beyond} threads of a library may leave the cores that are measured: the figures are of more than those"
    if not steady:
        yield "times did not come to rest during warm-up: something else is at work, or the processor changes its clock"
    others, stolen = monitor["others"], monitor["stolen"]
    if others is not None and others > OTHERS_SHARE:
        yield f"other programs took {others:.0%} of the measured cores' time: stop them and measure again"
    if stolen is not None and stolen > OTHERS_SHARE:
        yield f"the hypervisor withheld {stolen:.0%} of the measured cores' time: neighbours on this host are busy"
    if monitor["waited"] > WAITING_SHARE:
        yield f"the measuring process did not run for {monitor['waited']:.0%} of the time"
    if monitor["throttle_events"] or monitor["throttled"] not in (False, NOT_TOLD):
        yield "the processor was throttled: it is too hot, or its power supply too weak"
    if machine["governor"] not in ("performance", NOT_TOLD):
        yield f"the frequency governor is {machine['governor']}, so the clock follows the load; performance holds it"


def _governor(cores: Sequence[int]) -> str:
    return ", ".join(sorted({_read(CPUS / f"cpu{core}/cpufreq/scaling_governor") for core in cores} - {""})) or NOT_TOLD


def _frequency(cores: Sequence[int]) -> dict[str, float] | str:
    """Now and at most; where there is no cpufreq, what /proc/cpuinfo says of the measured core."""
    now = [_read(CPUS / f"cpu{core}/cpufreq/scaling_cur_freq") for core in cores]
    most = [_read(CPUS / f"cpu{core}/cpufreq/cpuinfo_max_freq") for core in cores]
    if all(now) and all(most):
        return {"now": max(map(float, now)) / 1e3, "most": max(map(float, most)) / 1e3}
    lines = _read(Path("/proc/cpuinfo")).splitlines()
    clocks = [float(line.partition(":")[2]) for line in lines if line.lower().startswith("cpu mhz")]
    return {"now": max(clocks)} if clocks else NOT_TOLD


def _temperature() -> float | str:
    read = [_read(zone / "temp") for zone in THERMAL.glob("thermal_zone*")]
    degrees = [int(value) / 1000.0 for value in read if value.lstrip("-").isdigit()]
    return max(degrees) if degrees else NOT_TOLD


def _throttled() -> bool | str:
    """A Raspberry Pi's own account: under-voltage, capped clock, throttling or soft temperature limit, right now."""
    try:
        return bool(int(_read(PI_THROTTLED), 16) & 0xF)
    except ValueError:
        return NOT_TOLD


def _throttle_count(cores: Sequence[int]) -> int:
    counts = [_read(CPUS / f"cpu{core}/thermal_throttle/core_throttle_count") for core in cores]
    return sum(map(int, counts)) if all(counts) else -1


def _core_seconds(cores: Sequence[int]) -> tuple[float, float]:
    """Seconds for which `cores` were busy since boot, and those withheld by a hypervisor; -1 where it is not told."""
    tick = 1.0 / os.sysconf("SC_CLK_TCK")
    rows = {line.split()[0]: line.split()[1:] for line in _read(Path("/proc/stat")).splitlines() if line[:3] == "cpu"}
    try:
        counted = [[int(value) for value in rows[f"cpu{core}"]] for core in cores]
        busy = sum(user + nice + system + irq + soft for user, nice, system, _, _, irq, soft, *_ in counted)
        return busy * tick, sum(row[7] for row in counted) * tick
    except (KeyError, ValueError, IndexError):
        return -1.0, -1.0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
