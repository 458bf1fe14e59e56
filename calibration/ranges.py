"""Ranges and grids: from what was observed of a tensor to the 256 values that will stand for it.

Three kinds of tensor, three estimators, each for the error that matters:
- an activation's range is the mean over the images of its smallest and largest value (`mean-extremes`);
- a value before a LeakyReLU gets the grid with the least squared error *after* the activation (`activation-error`);
- an output's range is that of the anchors that may become faces (`candidates`), the others need no precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..runtime.postprocess import Grid
from .agreement import STEPS, UNIT, before_leaky_relu, negative_factor
from .observe import CANDIDATE_SCORE, Observation

SMALLEST_SPAN = 1e-6
BINS = 4096
MARGIN = 0.05
"""Part of an output's range added at both ends, since INT8 outputs stray a little beyond FP32's."""
MOST_LOSS = 2.0
"""Kernels that agree are worth at most this factor in a layer's squared error."""


@dataclass(frozen=True)
class Range:
    """The values [low, high] that a grid represents, low ≤ 0 ≤ high, and the estimator that found them."""

    low: float
    high: float
    estimator: str

    @property
    def grid(self) -> Grid:
        """The uint8 grid over the range, on which 0 is exact."""
        scale = float(np.float32(max(self.high - self.low, SMALLEST_SPAN) / STEPS))
        return Grid(scale, int(np.clip(round(-self.low / scale), 0, STEPS)))


def mean_extremes(observation: Observation) -> Range:
    """The mean over the images of the tensor's smallest and largest value."""
    low = float(observation.low.min(axis=1).mean(dtype=np.float64))
    high = float(observation.high.max(axis=1).mean(dtype=np.float64))
    return Range(min(low, 0.0), max(high, 0.0), "mean-extremes")


def before_activation(observation: Observation, after: Grid, slope: float) -> Range:
    """The range before a LeakyReLU of that slope whose result is on the grid `after`.

    Both grids end at the same largest value. What is left to choose is the ratio of their scales: a larger one clips
    fewer negative values, which the slope makes small, and costs precision in the positive ones. Only ratios are tried
    that XNNPACK holds exactly: it multiplies by ratio and ratio·slope in steps of 1/256. Those on which every kernel
    gives the same integers are preferred, unless they cost too much.
    """
    high = (STEPS - after.zero_point) * after.scale
    counts, edges = np.histogram(observation.sample, bins=BINS)
    values = (edges[:-1] + edges[1:]) / 2.0
    wanted = np.where(values > 0.0, values, slope * values)
    best = {agrees: (math.inf, Range(-high, high, "activation-error")) for agrees in (True, False)}
    for units in _exact_ratios(slope):
        scale = before_leaky_relu(after.scale, units)
        candidate = Range(min(high - STEPS * scale, 0.0), high, "activation-error")
        got = _rounded(values, candidate.grid)
        got = _rounded(np.where(got > 0.0, got, slope * got), after)
        error = float(np.dot(counts, (got - wanted) ** 2))
        agrees = negative_factor(max(round(units * slope), 1))[1] >= candidate.grid.zero_point
        best[agrees] = min(best[agrees], (error, candidate), key=lambda pair: pair[0])
    (exact, agreeing), (least, other) = best[True], best[False]
    return agreeing if exact <= MOST_LOSS * least else other


def at_candidates(head: str, extremes: tuple[float, float]) -> Range:
    """The range of an output from its extremes at candidate anchors.

    A score below the candidates' need only stay below: its range begins where they do.
    """
    low, high = extremes
    margin = MARGIN * (high - low)
    if head == "score":
        low = math.log(CANDIDATE_SCORE / (1.0 - CANDIDATE_SCORE))
    return Range(min(low - margin, 0.0), max(high + margin, 0.0), "candidates")


def _exact_ratios(slope: float) -> list[int]:
    """Ratios in units of 1/256 that stay whole when multiplied by the slope, within rounding.

    From 3/4 to a little above 1/slope, which a tensor of negative values alone needs.
    """
    units = range(192, int(UNIT * min(1.05 / max(slope, 0.05), 21.0)) + 1)
    return [unit for unit in units if abs(unit * slope - round(unit * slope)) < 1e-3] or list(units)


def _rounded(values: np.ndarray, grid: Grid) -> np.ndarray:
    integers = np.clip(np.rint(values / grid.scale + grid.zero_point), 0, STEPS)
    return np.asarray((integers - grid.zero_point) * grid.scale)
