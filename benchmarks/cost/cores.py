"""The cores that frames are counted for, as data: caches, peak rates and the LLVM model used for each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources

from retinaface_edge.runtime.records import from_json

CORES = ("cortex-a72", "cortex-a76")


@dataclass(frozen=True)
class Cache:
    """A data cache: its size in bytes and its associativity."""

    bytes: int
    ways: int


@dataclass(frozen=True)
class Core:
    """A core of a board.

    `part` and `cpu_features` are what /proc/cpuinfo says of it, by which LiteRT chooses its kernels. The peak rates
    are multiply–accumulates per cycle; `caches` go from L1 outwards.
    """

    board: str
    part: str
    cpu_features: str
    gigahertz: float
    llvm_core: str
    llvm_note: str
    int8_macs_per_cycle: int
    fp32_macs_per_cycle: int
    caches: tuple[Cache, ...]
    source: str


def target_of(core: str) -> str:
    """The name of the target that stands for the board of a core, for instance raspberry-pi-4."""
    return read_core(core).board.lower().replace(" ", "-")


def read_core(name: str) -> Core:
    """The core of that name, one of `CORES`."""
    text = resources.files(__package__).joinpath("cores.json").read_text(encoding="utf-8")
    return from_json(Core, json.loads(text)[name], name)
