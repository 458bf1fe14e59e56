"""Targets (kinds of machine), time budgets, and which target this machine is."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path

from ..errors import SpecError
from ..records import from_json

TARGET_FILE = Path(__file__).parent / "targets.json"
BUDGET_FILE = Path(__file__).parent / "budgets.json"
TARGETS = ("generic", "x86-avx2", "x86-vnni", "raspberry-pi-4", "raspberry-pi-5")
BUDGETS = ("vga-30fps", "vga-paper", "pi4-vga", "pi5-vga")
CORTEX_A72, CORTEX_A76 = "0xd08", "0xd0b"
FEATURES = frozenset({"avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "asimd", "asimddp", "i8mm"})
"""Of a processor's features, those that decide how the backends compute."""


@dataclass(frozen=True)
class Target:
    """A kind of machine.

    `backends` are in order of preference, `precision` is what it runs best, `recipe` and `image_columns` are what INT8
    is made by for it, `weight_limit` is the largest INT8 weight that its sums hold (63 where 16-bit sums saturate),
    `budget` names what real time is for it, if that is known. A Raspberry Pi's are by counts (`benchmarks/cost`).
    """

    name: str
    description: str
    backends: tuple[str, ...]
    precision: str
    recipe: str
    image_columns: int
    weight_limit: int
    budget: str | None


@dataclass(frozen=True)
class Budget:
    """What nine of ten frames must keep to: milliseconds from frame to faces, at an input size, on so many cores."""

    name: str
    description: str
    milliseconds: float
    width: int
    height: int
    cores: int


@dataclass(frozen=True)
class Processor:
    """This machine's processor: architecture, model, and the features that decide how INT8 runs."""

    architecture: str
    model: str
    features: frozenset[str]
    part: str = ""


def read_target(name: str) -> Target:
    """The target of that name. Raises `SpecError` naming those that there are."""
    if name not in TARGETS:
        raise SpecError(f"there is no target {name!r}; choose one of: {', '.join(TARGETS)}")
    fields = json.loads(TARGET_FILE.read_text(encoding="utf-8"))[name]
    return from_json(Target, {"name": name, **fields}, name)


def read_budget(name: str) -> Budget:
    """The budget of that name. Raises `SpecError` naming those that there are."""
    if name not in BUDGETS:
        raise SpecError(f"there is no budget {name!r}; choose one of: {', '.join(BUDGETS)}")
    fields = json.loads(BUDGET_FILE.read_text(encoding="utf-8"))[name]
    return from_json(Budget, {"name": name, **fields}, name)


def this_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Processor:
    """Read from the kernel's `/proc/cpuinfo`; features are empty where there is none."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    values = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    features = frozenset(values.get("flags", values.get("features", "")).split())
    return Processor(platform.machine(), values.get("model name", "unknown"), features, values.get("cpu part", ""))


def choose_target(processor: Processor) -> tuple[Target, str]:
    """The target that a processor is, and why."""
    features = processor.features
    if processor.architecture in ("x86_64", "AMD64", "i686"):
        if vnni := sorted(features & {"avx_vnni", "avx512_vnni"}):
            return read_target("x86-vnni"), f"the processor has {' and '.join(vnni)}"
        if "avx2" in features:
            return read_target("x86-avx2"), "the processor has avx2 and no VNNI"
        return read_target("generic"), "the processor has no avx2"
    if processor.architecture in ("aarch64", "arm64"):
        if processor.part == CORTEX_A76 or "asimddp" in features:
            return read_target(
                "raspberry-pi-5"
            ), "the processor has dot-product instructions (asimddp), like a Cortex-A76"
        known = (
            "it is a Cortex-A72" if processor.part == CORTEX_A72 else "the processor has no dot-product instructions"
        )
        return read_target("raspberry-pi-4"), known
    return read_target("generic"), f"{processor.architecture} has no target of its own"
