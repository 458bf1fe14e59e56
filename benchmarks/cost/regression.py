"""Whether counts rose since an older result. They are the same on every machine, so any rise is the change's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..errors import MeasurementError
from ..gates.figures import COST_RATIOS, Figure, Floor
from ..gates.gate import Outcome, Rule
from .result import ArtifactCost, CostResult

NEGLIGIBLE = {"l1_misses": 1000, "l2_misses": 1000, "dram_bytes": 64000}
"""Up to so many are not judged: a network that fits into the cache has a handful, and one more is a large share."""
DECIDE = ("qemu-user", "llvm")
"""The tools that counts depend on besides LiteRT, which is judged like everything else."""


def outcomes_since(result: CostResult, old: CostResult, most: float) -> list[Outcome]:
    """Judge each figure against the older result's; `most` is the share by which it may rise.

    Raises `MeasurementError` when the two counted other things, or with other tools: then a difference says nothing.
    """
    if result.input_digest != old.input_digest:
        raise MeasurementError("the baseline counted another picture or input size; give the same --image")
    emulators = [{name: one.tools[name] for name in DECIDE if name in one.tools} for one in (result, old)]
    if _series(emulators[0]) != _series(emulators[1]):
        words = " and ".join(", ".join(f"{name} {version}" for name, version in one.items()) for one in emulators)
        raise MeasurementError(f"the baseline was counted with other tools ({words}); count it again with these")
    before = {cost.name: cost for cost in old.artifacts}
    outcomes = [
        outcome
        for cost in result.artifacts
        if cost.name in before
        for outcome in _judged(cost, before[cost.name], most)
    ]
    if not outcomes:
        raise MeasurementError("the baseline has no artifact and core in common with this result")
    return outcomes


def _series(tools: Mapping[str, str]) -> dict[str, str]:
    """Each tool's series, for instance 7.2: Debian's fixes within one change no instruction and no model of a core."""
    return {name: ".".join(version.split(".")[:2]) for name, version in tools.items()}


def _judged(cost: ArtifactCost, before: ArtifactCost, most: float) -> Iterator[Outcome]:
    for ratio in COST_RATIOS:
        name = ratio.removesuffix("_ratio")
        new, old = getattr(cost.total, name), getattr(before.total, name)
        if max(new, old) <= NEGLIGIBLE.get(name, 0):
            continue
        value = new / max(old, 1)
        rule = Rule(Floor.COST, ratio, name="no more work", artifact=cost.name, at_most=1.0 + most)
        yield Outcome(rule, Figure(Floor.COST, ratio, cost.name, "the baseline", cost.core, value), rule.holds(value))
