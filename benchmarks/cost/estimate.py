"""Milliseconds from counts: estimated, not measured, and always a range.

A frame takes its cycles, spread over the threads, and a fixed time for each line that L1 misses, which threads do not
share out: `ms = cycles / threads / clock + b · misses`. `b` is fitted to published times of MobileNets on a Raspberry
Pi 4 with four threads (`published_points.json`), and the range is what leaving out each point in turn got wrong, by
half as much again. For one thread nothing says how much of the waiting was contention, so the range is from `b` to
`threads · b`. Nothing is published that could check the Pi 5.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from retinaface_edge.runtime.records import from_json

from .cores import read_core
from .result import ArtifactCost, Estimate

FITTED_CORE, FITTED_THREADS = "cortex-a72", 4
MARGIN = 1.5
"""The range is this many times the worst error of a point that was left out: four points are few."""


@dataclass(frozen=True)
class Point:
    """A time that was measured on a board: milliseconds with so many threads, and the counts of the same network."""

    name: str
    source: str
    threads: int
    milliseconds: float
    cycles: int
    l1_misses: int


@dataclass(frozen=True)
class PublishedPoints:
    """What the method is fitted to, and what it is checked on without being fitted to it."""

    gigahertz: float
    fitted: tuple[Point, ...]
    checked: tuple[Point, ...]


@dataclass(frozen=True)
class Fit:
    """Nanoseconds per line that L1 misses, and the errors of the points when each was left out, as shares."""

    nanoseconds_per_miss: float
    left_out_errors: tuple[float, ...]

    @property
    def range_share(self) -> float:
        """How far off an estimate may be, as a share of it."""
        return MARGIN * max(abs(error) for error in self.left_out_errors)


def published_points() -> PublishedPoints:
    """The points that ship with the project."""
    text = resources.files(__package__).joinpath("published_points.json").read_text(encoding="utf-8")
    return from_json(PublishedPoints, json.loads(text))


def fit(points: Sequence[Point], gigahertz: float) -> Fit:
    """Fit the time per miss to at least two points by least squares of the relative errors."""
    errors = []
    for index, point in enumerate(points):
        others = [*points[:index], *points[index + 1 :]]
        errors.append(milliseconds(point, gigahertz, _time_per_miss(others, gigahertz)) / point.milliseconds - 1.0)
    return Fit(_time_per_miss(points, gigahertz), tuple(errors))


def milliseconds(point: Point, gigahertz: float, nanoseconds_per_miss: float) -> float:
    """What the method gives for the counts of a point."""
    return point.cycles / point.threads / gigahertz / 1e6 + nanoseconds_per_miss * point.l1_misses / 1e6


def estimates(cost: ArtifactCost) -> tuple[Estimate, ...]:
    """Ranges for one thread and for four, with what they rest on."""
    return estimates_of(cost.core, cost.total.cycles, cost.total.l1_misses)


def estimates_of(core_name: str, cycles: int, l1_misses: int) -> tuple[Estimate, ...]:
    """The same from the counts alone."""
    points = published_points()
    found, core = fit(points.fitted, points.gigahertz), read_core(core_name)
    gigahertz, share = core.gigahertz, found.range_share
    counted = Point(core_name, "", FITTED_THREADS, 0.0, cycles, l1_misses)
    four = milliseconds(counted, gigahertz, found.nanoseconds_per_miss)
    one_thread = Point(core_name, "", 1, 0.0, cycles, l1_misses)
    low, high = (milliseconds(one_thread, gigahertz, found.nanoseconds_per_miss * n) for n in (1, FITTED_THREADS))
    checks = f"fitted to {len(points.fitted)} published times on a Raspberry Pi 4"
    if core_name != FITTED_CORE:
        checks = f"NOT VALIDATED on a {core.board}: the time per miss is a Raspberry Pi 4's"
    worst = max(abs(error) for error in found.left_out_errors)
    return (
        Estimate(1, low, high, f"estimated, not measured, at {gigahertz:g} GHz; {checks}; one thread is a bracket"),
        Estimate(
            FITTED_THREADS,
            four * (1.0 - share),
            four * (1.0 + share),
            f"estimated, not measured, at {gigahertz:g} GHz; {checks}; left out, each was within {worst:.0%}",
        ),
    )


def _time_per_miss(points: Sequence[Point], gigahertz: float) -> float:
    """Least squares of b in (cycles + b · misses − measured) / measured; no time is negative."""
    shares = [
        (p.l1_misses / p.milliseconds / 1e6, 1.0 - milliseconds(p, gigahertz, 0.0) / p.milliseconds) for p in points
    ]
    return max(sum(x * y for x, y in shares) / sum(x * x for x, _ in shares), 0.0)
