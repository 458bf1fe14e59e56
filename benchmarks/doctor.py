"""What this machine can do, in ten lines: its processor, the backends, what to expect, and what is in the way."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from retinaface_edge.runtime.backends import BACKENDS, installed
from retinaface_edge.runtime.host.targets import FEATURES, Target, choose_target, read_budget, this_processor

from .cost.cores import CORES, target_of
from .cost.demo_counts import cheapest, demo_counts
from .environment import NOT_TOLD, Machine, describe_machine
from .linux import usable_cores
from .versions import environment

BUSY = 0.5
PACKAGES = {"openvino": ("openvino",), "tflite": ("ai-edge-litert", "tflite-runtime"), "onnxruntime": ("onnxruntime",)}


def doctor_text() -> str:
    """The ten lines as text."""
    return "\n".join(f"{label:11} {text}" for label, text in doctor_lines())


def doctor_lines() -> list[tuple[str, str]]:
    """The ten lines: what each is about, and the text."""
    processor = this_processor()
    target, why = choose_target(processor)
    usable = [backend for backend in target.backends if backend in installed()]
    cores = usable_cores()
    machine = describe_machine(cores)
    budget = read_budget(target.budget) if target.budget else None
    name = f"{processor.model} ({processor.architecture}), {len(cores)} of {os.cpu_count()} cores"
    features = ", ".join(sorted(processor.features & FEATURES)) or "none that matter here"
    told = f"{budget.milliseconds:g} ms per VGA frame on one core ({budget.name})" if budget else "no budget is known"
    told = "; ".join([told, *_estimated(target)])
    best = f"{usable[0]} {target.precision}; measure it: bench BUNDLE --quick --pick" if usable else "nothing can run"
    lines = [("processor", name), ("features", features), ("target", f"{target.name}: {why}"), ("expected", told)]
    lines += [(backend, _version(backend)) for backend in target.backends]
    lines += [("best", best), ("state", _state(machine))]
    lines += [("in the way", "; ".join(_obstacles(target, machine, cores)) or "nothing was found")]
    return lines


def _estimated(target: Target) -> Iterator[str]:
    """What was estimated from counts for the demo's network, for a target whose core was counted."""
    for core in CORES:
        if target.name == target_of(core):
            ranges = cheapest(demo_counts(), core).estimates
            spans = (f"{one.lowest_ms:.0f} to {one.highest_ms:.0f} ms on {one.threads} of its cores" for one in ranges)
            yield f"estimated, not measured, for the demo's INT8 TFLite: {' and '.join(spans)}"


def _version(backend: str) -> str:
    if backend not in installed():
        return f"missing: pip install 'retinaface-edge[{backend}]'"
    found = [f"{name} {environment()[name]}" for name in PACKAGES[backend] if name in environment()]
    return ", ".join(found) or "installed"


def _state(machine: Machine) -> str:
    told = {"governor": machine.governor, "temperature": machine.temperature_c, "throttled": machine.throttled}
    known = [f"{key} {value}" for key, value in told.items() if value is not None]
    unknown = [key for key, value in told.items() if value is None]
    load = f"load {machine.load[0]:.2f}"
    return ", ".join([load, *known, *([f"{' and '.join(unknown)} {NOT_TOLD}"] if unknown else [])])


def _obstacles(target: Target, machine: Machine, cores: list[int]) -> Iterator[str]:
    present = installed()
    if not present:
        yield f"no backend: pip install 'retinaface-edge[{target.backends[0]}]'"
    elif target.backends[0] not in present:
        yield f"{target.backends[0]} is missing, the fastest backend on this kind of machine"
    if struct.calcsize("P") < 8:
        yield f"a 32-bit Python, for which {' and '.join(BACKENDS)} have no packages: install a 64-bit system"
    if machine.load[0] > BUSY * len(cores):
        yield f"load {machine.load[0]:.1f} on {len(cores)} cores: other programs are running"
    if machine.governor not in ("performance", None):
        yield f"governor {machine.governor}: the clock follows the load"
    if machine.throttled:
        yield "the processor is throttled: cool it, or give it a stronger power supply"
    if target.name == "generic":
        yield "this processor has no known fast INT8 instructions: FP32 may be as fast"
