"""Cycles of blocks of code on a core, by LLVM's models: each block as the body of a loop, data in the L1 cache."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence

from ..errors import MeasurementError
from .cores import Core
from .emulator.counts import Block, Counts

ITERATIONS = 100
HOT_SHARE = 0.9995
"""Blocks that make up this share of the instructions are simulated; the others are taken to run at their pace."""
OLDEST_LLVM = 16
"""The first LLVM with a model of the Neoverse N1."""
NEWEST_LLVM = 30
PREFERRED_LLVM = 19
"""What `make arm64-userspace` installs, and what the published points and the baselines were counted with."""


def find_llvm() -> tuple[str, str]:
    """The suffix of LLVM's programs and their version: the preferred one, or else the newest here that will do.

    Raises `MeasurementError` when there is none.
    """
    versions = (PREFERRED_LLVM, *range(NEWEST_LLVM, OLDEST_LLVM - 1, -1))
    for suffix in (*(f"-{version}" for version in versions), ""):
        if shutil.which(f"llvm-mca{suffix}") and shutil.which(f"llvm-mc{suffix}"):
            text = subprocess.run([f"llvm-mca{suffix}", "--version"], capture_output=True, text=True).stdout
            if (found := re.search(r"version ((\d+)\.\S+)", text)) and int(found[2]) >= OLDEST_LLVM:
                return suffix, found[1]
    raise MeasurementError(f"cycles need llvm-mca {OLDEST_LLVM} or newer; run: apt-get install llvm-19")


def block_cycles(counts: Counts, core: Core) -> list[float]:
    """Cycles of one run of each block of `counts.blocks`. Raises `MeasurementError` when LLVM is missing or fails."""
    suffix, _ = find_llvm()
    instructions = [0] * len(counts.blocks)
    for interval in counts.intervals:
        for block, times in interval.runs.items():
            instructions[block] += times * counts.blocks[block].instructions
    hot, covered = [], 0
    for index in sorted(range(len(instructions)), key=lambda index: -instructions[index]):
        if covered >= HOT_SHARE * counts.instructions:
            break
        hot.append(index)
        covered += instructions[index]
    assembly = _disassemble([counts.blocks[index] for index in hot], suffix)
    simulated = dict(zip(hot, _simulate(assembly, core, suffix), strict=True))
    spent = sum(simulated[i] * instructions[i] / counts.blocks[i].instructions for i in hot)
    pace = spent / covered if covered else 0.0
    return [simulated.get(index, pace * block.instructions) for index, block in enumerate(counts.blocks)]


def _disassemble(blocks: Sequence[Block], suffix: str) -> list[list[str]]:
    """The assembly of each block, one line per instruction."""
    words = [block.code[at : at + 4] for block in blocks for at in range(0, len(block.code), 4)]
    text = "\n".join(" ".join(f"0x{byte:02x}" for byte in word) for word in words)
    output = _llvm([f"llvm-mc{suffix}", "--disassemble", "-triple=aarch64", "-mattr=+all", "-"], text)
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.strip().startswith((".", "//"))]
    if len(lines) != len(words):
        raise MeasurementError(f"llvm-mc read {len(lines)} of {len(words)} instructions; install a newer LLVM")
    remaining = iter(lines)
    return [[next(remaining) for _ in range(block.instructions)] for block in blocks]


def _simulate(assembly: Sequence[Sequence[str]], core: Core, suffix: str) -> list[float]:
    """Cycles of one turn of each block as a loop."""
    regions = [
        f"# LLVM-MCA-BEGIN {index}\n" + "\n".join(lines) + "\n# LLVM-MCA-END\n" for index, lines in enumerate(assembly)
    ]
    options = [
        "-mtriple=aarch64",
        "-mattr=+all",
        f"-mcpu={core.llvm_core}",
        f"-iterations={ITERATIONS}",
        "--json",
        "--instruction-info=false",
    ]
    options += ["--resource-pressure=false"]
    output = _llvm([f"llvm-mca{suffix}", *options, "-"], "".join(regions))
    found = {region["Name"]: region["SummaryView"] for region in json.loads(output)["CodeRegions"]}
    return [found[str(index)]["TotalCycles"] / ITERATIONS for index in range(len(assembly))]


def _llvm(command: Sequence[str], text: str) -> str:
    result = subprocess.run(command, input=text, capture_output=True, text=True)
    if result.returncode:
        raise MeasurementError(f"{command[0]} failed: {(result.stderr.strip().splitlines() or ['no message'])[0]}")
    return result.stdout
