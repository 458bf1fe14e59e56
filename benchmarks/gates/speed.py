"""What a bench result must hold: a budget of time, and a baseline that it must not fall behind.

The outcomes are those of `gate`: they print, count and turn into JUnit XML like all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.host.targets import Budget

from ..environment import unlike
from ..errors import MeasurementError
from ..latency.result import BenchResult, Latency, RunnerKind, RunnerResult
from ..stats.bootstrap import Ratio, paired_ratio, unpaired_ratio
from .figures import RATIO_TO_BASELINE, Figure, Floor
from .gate import Outcome, Rule

BASELINE_PREFIX = "baseline "


def fastest(result: BenchResult, figure: Callable[[Latency], float] = lambda latency: latency.p50_ms) -> RunnerResult:
    """The fastest artifact, by its median. Raises `MeasurementError` when no artifact was measured."""
    artifacts = result.artifacts()
    if not artifacts:
        raise MeasurementError("no artifact of the bundle could be measured here; see what is absent, and install it")
    return min(artifacts, key=lambda runner: figure(runner.latency))


def check_budget(budget: Budget, width: int, height: int, cores: int) -> None:
    """Raise `MeasurementError` unless the budget is for this input size and number of cores."""
    if (budget.width, budget.height) != (width, height):
        raise MeasurementError(
            f"{budget.name} is for {budget.width}x{budget.height}, this bundle's input is {width}x{height}; "
            "give a bundle of that size, or leave out --target"
        )
    if budget.cores != cores:
        raise MeasurementError(f"{budget.name} is for {budget.cores} core, not {cores}; leave out --cores")


def budget_outcome(result: BenchResult, budget: Budget) -> Outcome:
    """Whether nine of ten frames of the fastest artifact kept to the budget."""
    runner = fastest(result, lambda latency: latency.p90_ms)
    p90_ms = runner.latency.p90_ms
    name = f"target {budget.name}"
    rule = Rule(Floor.BENCH, "p90_ms", name=name, artifact=runner.name, at_most=budget.milliseconds)
    figure = Figure(Floor.BENCH, "p90_ms", runner.name, "", "whole call, fastest artifact", p90_ms)
    return Outcome(rule, figure, rule.holds(p90_ms))


def outcomes_beside(result: BenchResult, most: float) -> list[Outcome]:
    """Each artifact against the baseline bundle's, both measured in the same rounds; `most` is the allowed slowdown."""
    baselines = {runner.name: runner for runner in result.runners if runner.kind is RunnerKind.BASELINE}
    pairs = [
        (runner.name, paired_ratio(result.call_seconds(runner), result.call_seconds(baseline)))
        for runner in result.runners
        if (baseline := baselines.get(BASELINE_PREFIX + runner.name))
    ]
    return _outcomes(pairs, "the baseline bundle", most)


def outcomes_since(result: BenchResult, old: BenchResult, most: float) -> list[Outcome]:
    """Each artifact against an older result of the same machine and frames.

    Every call is divided by the yardstick of its round, so that a machine that is slower today does not count. Two
    processes differ by up to three percent in how their memory lies, which no interval of one run knows: to find less,
    give the older bundle, and both run in one process. Raises `MeasurementError` when machine, frames or cores are not
    alike: then nothing can be said.
    """
    if differing := unlike(result.machine, old.machine):
        raise MeasurementError(
            f"the baseline is from a different machine ({'; '.join(differing)}); measure it on this one"
        )
    if result.frames.digest != old.frames.digest:
        raise MeasurementError("the baseline was measured on other frames; give the same pictures and --limit")
    before = {runner.name: runner for runner in old.runners}
    pairs = [
        (runner.name, unpaired_ratio(_by_yardstick(result, runner), _by_yardstick(old, before[runner.name])))
        for runner in result.artifacts()
        if runner.name in before
    ]
    return _outcomes(pairs, "the baseline result", most)


def _by_yardstick(result: BenchResult, runner: RunnerResult) -> NDArray[np.float64]:
    calls = result.call_seconds(runner)
    return np.asarray(calls / result.yardstick_seconds()[: len(calls)])


def _outcomes(pairs: Sequence[tuple[str, Ratio]], reference: str, most: float) -> list[Outcome]:
    """A regression is what exceeds the limit and is no accident: the 95 % interval of the ratio lies above 1."""
    if not pairs:
        raise MeasurementError(f"{reference} has no artifact in common with this measurement")
    return list(_judged(pairs, reference, most))


def _judged(pairs: Sequence[tuple[str, Ratio]], reference: str, most: float) -> Iterator[Outcome]:
    for name, ratio in pairs:
        rule = Rule(Floor.BENCH, RATIO_TO_BASELINE, name="no regression", artifact=name, at_most=1.0 + most)
        of = f"whole call, 95 % interval {ratio.low:.3f} to {ratio.high:.3f}"
        figure = Figure(Floor.BENCH, RATIO_TO_BASELINE, name, reference, of, ratio.value)
        yield Outcome(rule, figure, rule.holds(ratio.value) or ratio.low <= 1.0)
