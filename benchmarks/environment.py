"""The machine that a figure belongs to: what it is, what state it is in, and what disturbed a measurement on it.

Figures come from `linux`. What a system does not report is None, and never guessed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from retinaface_edge.runtime.host.targets import FEATURES, this_processor

from . import linux

NOT_TOLD = "not told by this system"
IDENTITY = ("architecture", "processor", "features", "governor")
"""What must be the same in two results for their times to be compared."""
OTHERS_SHARE, WAITING_SHARE = 0.02, 0.02
"""Above these a figure is called disturbed: the others' share of our cores' time, and our share of waiting."""


@dataclass(frozen=True)
class Machine:
    """A machine before a measurement, and the `cores` that are measured."""

    architecture: str
    features: tuple[str, ...]
    cores: tuple[int, ...]
    machine_cores: int
    load: tuple[float, float, float]
    processor: str | None = None
    governor: str | None = None
    frequency: linux.Frequency | None = None
    temperature_c: float | None = None
    throttled: bool | None = None


@dataclass(frozen=True)
class MachineUse:
    """What a machine did during a measurement. Shares are 0…1, of the measured cores' time unless said otherwise.

    `own_share` is the measurement's, `others_share` other programs', `stolen_share` was withheld by a hypervisor.
    `waiting_share` is the share of the seconds in which the measurement did not run though it had work to do.
    """

    seconds: float
    own_share: float
    waiting_share: float
    preemptions: int
    load: tuple[float, float, float]
    others_share: float | None = None
    stolen_share: float | None = None
    throttle_events: int | None = None
    throttled: bool | None = None
    temperature_c: float | None = None


def describe_machine(cores: Sequence[int]) -> Machine:
    """What decides the times that are measured on `cores` of this machine."""
    processor = this_processor()
    return Machine(
        architecture=processor.architecture,
        processor=processor.model if processor.model != "unknown" else processor.part or None,
        features=tuple(sorted(processor.features & FEATURES)),
        cores=tuple(cores),
        machine_cores=os.cpu_count() or len(cores),
        governor=linux.governor(cores),
        frequency=linux.frequency(cores),
        temperature_c=linux.temperature_c(),
        throttled=linux.throttled(),
        load=linux.load_averages(),
    )


def unlike(a: Machine, b: Machine) -> list[str]:
    """In what two machines differ so that their times must not be compared, in words; empty if in nothing."""
    pairs = ((key, getattr(a, key), getattr(b, key)) for key in IDENTITY)
    differing = [f"{key}: {_words(one)} and {_words(other)}" for key, one, other in pairs if one != other]
    if len(a.cores) != len(b.cores):
        differing.append(f"cores used: {len(a.cores)} and {len(b.cores)}")
    return differing


class Monitor:
    """Watches `cores` from its making until `stop`. Raises `MeasurementError` where psutil is missing."""

    def __init__(self, cores: Sequence[int]) -> None:
        self._cores = cores
        self._before = _Counters.now(cores)

    def stop(self) -> MachineUse:
        """What happened since."""
        before, after = self._before, _Counters.now(self._cores)
        seconds = max(after.wall_seconds - before.wall_seconds, 1e-9)
        own = after.own_seconds - before.own_seconds
        available = len(self._cores) * seconds
        others = stolen = None
        if before.core_seconds and after.core_seconds:
            busy, withheld = (b - a for a, b in zip(before.core_seconds, after.core_seconds, strict=True))
            others, stolen = max(busy - own, 0.0) / available, withheld / available
        told = before.throttles is not None and after.throttles is not None
        return MachineUse(
            seconds=seconds,
            own_share=own / available,
            others_share=others,
            stolen_share=stolen,
            waiting_share=max(1.0 - own / seconds, 0.0),
            preemptions=after.preemptions - before.preemptions,
            throttle_events=(after.throttles or 0) - (before.throttles or 0) if told else None,
            throttled=linux.throttled(),
            temperature_c=linux.temperature_c(),
            load=linux.load_averages(),
        )


@dataclass(frozen=True)
class _Counters:
    """Counters that only grow, at one moment."""

    wall_seconds: float
    own_seconds: float
    core_seconds: tuple[float, float] | None
    preemptions: int
    throttles: int | None

    @classmethod
    def now(cls, cores: Sequence[int]) -> _Counters:
        core_seconds, preemptions = linux.core_seconds(cores), linux.preemptions()
        throttles = linux.throttle_count(cores)
        return cls(time.perf_counter(), time.process_time(), core_seconds, preemptions, throttles)


def disturbances(machine: Machine, use: MachineUse, steady: bool, beyond: int) -> Iterator[str]:
    """What makes the figures of a measurement doubtful, in plain sentences.

    `steady` says whether times settled during warm-up, `beyond` how many threads may leave the measured cores.
    """
    if beyond:
        yield f"{beyond} threads of a library may leave the cores that are measured: the figures are of more than those"
    if not steady:
        yield "times did not settle during warm-up: something else is running, or the processor changes its clock"
    others, stolen = use.others_share, use.stolen_share
    if others is not None and others > OTHERS_SHARE:
        yield f"other programs took {others:.0%} of the measured cores' time: stop them and measure again"
    if stolen is not None and stolen > OTHERS_SHARE:
        yield f"the hypervisor withheld {stolen:.0%} of the measured cores' time: neighbours on this host are busy"
    if use.waiting_share > WAITING_SHARE:
        yield f"the measuring process did not run for {use.waiting_share:.0%} of the time"
    if use.throttle_events or use.throttled:
        yield "the processor was throttled: it is too hot, or its power supply too weak"
    if machine.governor not in ("performance", None):
        yield f"the frequency governor is {machine.governor}, so the clock follows the load; performance holds it"


def _words(value: str | tuple[str, ...] | None) -> str:
    if value is None:
        return NOT_TOLD
    return value if isinstance(value, str) else ", ".join(value) or "none"
