"""Ranges and quantisation parameters: from what was observed of a tensor to the 256 values that stand for it.

Three kinds of tensor, each with an estimator for the error that matters:
- an activation's range comes from one of `ESTIMATORS`: in the recipes, the mean over the images of its extremes at the
  highest resolution; in the rest of the backbone the extremes of all images, since large faces show on few of them; and
  in the neck the extremes of nine images in ten;
- a value before a LeakyReLU gets the range with the least squared error *after* the activation (`activation-error`);
- an output's range is that of the anchors that may become faces (`candidates`), the others need no precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.ops.quantization import QuantParams

from .kernel_parity import STEPS, UNIT, before_leaky_relu, negative_factor
from .observers import CANDIDATE_SCORE, Observation

SMALLEST_SPAN = 1e-6
BINS = 4096
PERCENTILE = 99.99
MARGIN = 0.05
"""Part of an output's range added at both ends, since INT8 outputs stray a little beyond FP32's."""
SHARES = np.linspace(0.2, 1.0, 33)
"""Shares of the full range that the searching estimators try at each end."""
EXTREMES = 0.1
"""Share of channels' extremes in the error before an activation, unless its range is `mean-extremes`.

Faces cover little of the sample, but have the extremes.
"""
MOST_LOSS = 2.0
"""Kernels that agree are worth at most this factor in a layer's squared error."""


@dataclass(frozen=True)
class Range:
    """The values [low, high] that are represented, low ≤ 0 ≤ high, and the estimator that found them."""

    low: float
    high: float
    estimator: str

    @property
    def quant(self) -> QuantParams:
        """The uint8 quantisation parameters of the range, by which 0 is exact."""
        scale = float(np.float32(max(self.high - self.low, SMALLEST_SPAN) / STEPS))
        return QuantParams(scale, int(np.clip(round(-self.low / scale), 0, STEPS)))

    def symmetric(self) -> Range:
        """The range widened so that zero is in its middle."""
        reach = max(-self.low, self.high)
        return replace(self, low=-reach, high=reach * (STEPS - 128) / 128)


def mean_extremes(observation: Observation) -> Range:
    """The mean over the images of the tensor's smallest and largest value: one odd image moves it little."""
    low = float(observation.low.min(axis=1).mean(dtype=np.float64))
    high = float(observation.high.max(axis=1).mean(dtype=np.float64))
    return Range(min(low, 0.0), max(high, 0.0), "mean-extremes")


def extremes_90(observation: Observation) -> Range:
    """Between the extremes of nine images in ten: for values that only some images have, as faces of one size."""
    low = float(np.percentile(observation.low.min(axis=1), 10.0))
    high = float(np.percentile(observation.high.max(axis=1), 90.0))
    return Range(min(low, 0.0), max(high, 0.0), "extremes-90")


def min_max(observation: Observation) -> Range:
    """The smallest and largest value on any image."""
    return Range(min(float(observation.low.min()), 0.0), max(float(observation.high.max()), 0.0), "min-max")


def percentile(observation: Observation) -> Range:
    """All but 0.01 % of the sampled values at each end."""
    low, high = np.percentile(observation.sample, (100.0 - PERCENTILE, PERCENTILE))
    return Range(min(float(low), 0.0), max(float(high), 0.0), "percentile")


def mean_squared_error(observation: Observation) -> Range:
    """The range whose 256 values are nearest to the sampled ones, in squared error."""
    counts, values = _histogram(observation.sample)

    def error(candidate: Range) -> float:
        return float(np.dot(counts, (_rounded(values, candidate.quant) - values) ** 2))

    return min(_narrower(min_max(observation), "mean-squared-error"), key=error)


def histogram(observation: Observation) -> Range:
    """The range whose 256 steps keep the histogram's shape: the least Kullback–Leibler divergence (Migacz, 2017)."""
    counts, values = _histogram(observation.sample)
    total = counts.sum()

    def divergence(candidate: Range) -> float:
        quant = candidate.quant
        step = np.clip(np.rint(values / quant.scale + quant.zero_point), 0, STEPS).astype(np.int64)
        inside = (values >= candidate.low) & (values <= candidate.high)
        # What 256 values can tell apart: each step's inside mass, spread evenly over the bins that held any.
        filled = (counts > 0) & inside
        mass = np.bincount(step[inside], counts[inside], STEPS + 1)
        bins = np.bincount(step[filled], minlength=STEPS + 1)
        spread = np.where(filled, mass[step] / np.maximum(bins[step], 1), 0.0)
        # What it should tell: the values cut off count at the ends.
        clipped = np.where(inside, counts, 0.0)
        np.add.at(clipped, int(np.flatnonzero(inside)[0]), counts[values < candidate.low].sum())
        np.add.at(clipped, int(np.flatnonzero(inside)[-1]), counts[values > candidate.high].sum())
        p, q = clipped / total, np.maximum(spread, 1e-9) / max(spread.sum(), 1e-9)
        return float(np.sum(p[p > 0] * np.log(p[p > 0] / q[p > 0])))

    return min(_narrower(min_max(observation), "histogram"), key=divergence)


ESTIMATORS: Mapping[str, Callable[[Observation], Range]] = {
    "mean-extremes": mean_extremes,
    "extremes-90": extremes_90,
    "min-max": min_max,
    "percentile": percentile,
    "mean-squared-error": mean_squared_error,
    "histogram": histogram,
}


def before_activation(observation: Observation, after: Range, slope: float) -> Range:
    """The range before a LeakyReLU of that slope whose result has the range `after`.

    Both ranges end at the same largest value. What is left to choose is the ratio of their scales: a larger one clips
    fewer negative values, which the slope makes small, and costs precision in the positive ones. Only ratios are tried
    that XNNPACK holds exactly: it multiplies by ratio and ratio·slope in steps of 1/256. Those on which every kernel
    gives the same integers are preferred, unless they cost too much.
    """
    quant = after.quant
    high = (STEPS - quant.zero_point) * quant.scale
    typical, middles = _histogram(observation.sample)
    extreme, ends = _histogram(np.stack([observation.low, observation.high]))
    share = 0.0 if after.estimator == "mean-extremes" else EXTREMES
    counts = np.concatenate([(1.0 - share) * typical / typical.sum(), share * extreme / extreme.sum()])
    values = np.concatenate([middles, ends])
    wanted = np.where(values > 0.0, values, slope * values)

    def error(candidate: Range) -> float:
        got = _rounded(values, candidate.quant)
        got = _rounded(np.where(got > 0.0, got, slope * got), quant)
        return float(np.dot(counts, (got - wanted) ** 2))

    best: dict[bool, tuple[float, Range]] = {}
    for units in _exact_ratios(slope):
        scale = before_leaky_relu(quant.scale, units)
        candidate = Range(min(high - STEPS * scale, 0.0), high, "activation-error")
        agrees = negative_factor(max(round(units * slope), 1))[1] >= candidate.quant.zero_point
        best[agrees] = min(best.get(agrees, (math.inf, candidate)), (error(candidate), candidate), key=lambda p: p[0])
    least, other = best.get(False, (math.inf, None))
    exact, agreeing = best.get(True, (math.inf, other))
    chosen = agreeing if exact <= MOST_LOSS * least else other
    assert chosen is not None
    return chosen


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


def _histogram(values: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Counts of the values, and the middles of their bins."""
    counts, edges = np.histogram(values, bins=BINS)
    return counts, np.asarray((edges[:-1] + edges[1:]) / 2.0, np.float64)


def _narrower(full: Range, estimator: str) -> Iterator[Range]:
    for low in SHARES if full.low else SHARES[-1:]:
        for high in SHARES if full.high else SHARES[-1:]:
            yield Range(full.low * low, full.high * high, estimator)


def _rounded(values: NDArray[np.float64], quant: QuantParams) -> NDArray[np.float64]:
    integers = np.clip(np.rint(values / quant.scale + quant.zero_point), 0, STEPS)
    return np.asarray((integers - quant.zero_point) * quant.scale, np.float64)
