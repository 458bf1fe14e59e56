"""What a bench result must hold: a budget of time, and a baseline that it must not fall behind.

The outcomes are those of `gate`: they print, count and turn into JUnit XML like all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from retinaface_edge.runtime.host.targets import Budget

from ..environment import unlike
from ..inference.network_under_test import MeasurementError
from ..latency.run import whole_calls, yardstick
from ..latency.runners import ARTIFACT, BASELINE
from ..stats.bootstrap import paired_ratio, unpaired_ratio
from .figures import BENCH, RATIO_TO_BASELINE, Figure
from .gate import Outcome, Rule

BASELINE_PREFIX = "baseline "


def fastest(result: Mapping[str, Any], figure: str = "p50_ms") -> Mapping[str, Any]:
    """The row of the fastest artifact. Raises `MeasurementError` when no artifact was measured."""
    rows = [row for row in result["results"] if row["kind"] == ARTIFACT]
    if not rows:
        raise MeasurementError("no artifact of the bundle could be measured here; see what is absent, and install it")
    return min(rows, key=lambda row: float(row[figure]))


def check_budget(budget: Budget, width: int, height: int, cores: int) -> None:
    """Raise `MeasurementError` unless the budget speaks of this input size and number of cores."""
    if (budget.width, budget.height) != (width, height):
        raise MeasurementError(
            f"{budget.name} speaks of {budget.width}x{budget.height}, this bundle's input is {width}x{height}; "
            "give a bundle of that size, or leave --target"
        )
    if budget.cores != cores:
        raise MeasurementError(f"{budget.name} speaks of {budget.cores} core, not {cores}; leave --cores")


def budget_outcome(result: Mapping[str, Any], budget: Budget) -> Outcome:
    """Whether nine of ten frames of the fastest artifact kept to the budget."""
    row = fastest(result, "p90_ms")
    rule = Rule(f"target {budget.name}", BENCH, "p90_ms", row["name"], at_most=budget.milliseconds)
    figure = Figure(BENCH, "p90_ms", row["name"], "", "whole call, fastest artifact", row["p90_ms"])
    return Outcome(rule, figure, rule.holds(row["p90_ms"]))


def outcomes_beside(result: Mapping[str, Any], most: float) -> list[Outcome]:
    """Each artifact against the baseline bundle's, both measured in the same rounds; `most` is the allowed slowdown."""
    names = {row["name"] for row in result["results"] if row["kind"] == BASELINE}
    pairs = [
        (
            row["name"],
            paired_ratio(whole_calls(result, row["name"]), whole_calls(result, BASELINE_PREFIX + row["name"])),
        )
        for row in result["results"]
        if BASELINE_PREFIX + row["name"] in names
    ]
    return _outcomes(pairs, "the baseline bundle", most)


def outcomes_since(result: Mapping[str, Any], old: Mapping[str, Any], most: float) -> list[Outcome]:
    """Each artifact against an older result of the same machine and frames.

    Every call is divided by the yardstick of its round, so that a machine that is slower today does not count. Two
    processes differ by up to three percent in how their memory lies, which no interval of one run knows: to find less,
    give the older bundle, and both run in one process. Raises
    `MeasurementError` when machine, frames or cores are not alike: then nothing can be said.
    """
    if differing := unlike(result["machine"], old["machine"]):
        raise MeasurementError(f"the baseline is of an unlike machine ({'; '.join(differing)}); measure it on this one")
    if result["frames"]["digest"] != old["frames"]["digest"]:
        raise MeasurementError("the baseline was measured on other frames; give the same pictures and --limit")
    known = {row["name"] for row in old["results"]}
    pairs = []
    for row in result["results"]:
        if row["kind"] != ARTIFACT or row["name"] not in known:
            continue
        new, before = (_by_yardstick(of, row["name"]) for of in (result, old))
        pairs.append((row["name"], unpaired_ratio(new, before)))
    return _outcomes(pairs, "the baseline result", most)


def _by_yardstick(result: Mapping[str, Any], name: str) -> Any:
    calls = whole_calls(result, name)
    return calls / yardstick(result)[: len(calls)]


def _outcomes(pairs: Sequence[tuple[str, tuple[float, float, float]]], reference: str, most: float) -> list[Outcome]:
    """Slower is what exceeds the limit and is no accident: the 95 % interval of the ratio lies above 1."""
    if not pairs:
        raise MeasurementError(f"{reference} has no artifact in common with this measurement")
    return list(_judged(pairs, reference, most))


def _judged(pairs: Sequence[tuple[str, tuple[float, float, float]]], reference: str, most: float) -> Iterator[Outcome]:
    for name, (ratio, low, high) in pairs:
        rule = Rule("no regression", BENCH, RATIO_TO_BASELINE, name, at_most=1.0 + most)
        of = f"whole call, 95 % interval {low:.3f} to {high:.3f}"
        figure = Figure(BENCH, RATIO_TO_BASELINE, name, reference, of, ratio)
        yield Outcome(rule, figure, rule.holds(ratio) or low <= 1.0)
