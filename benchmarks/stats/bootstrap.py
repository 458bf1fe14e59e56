"""Confidence intervals of medians and of their ratios, for measurements that depend on their neighbours.

The moving-block bootstrap (Künsch, 1989, Annals of Statistics 17) draws blocks of neighbouring rounds, so that a slow
second counts as one event and not as a hundred independent ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
LEVEL = 95.0


@dataclass(frozen=True)
class Ratio:
    """A ratio of two medians, and the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def block_draws(rounds: int, seed: int = 0, draws: int = DRAWS) -> NDArray[np.intp]:
    """Indices (draws, rounds) into rounds, in blocks of √rounds neighbours."""
    length = max(1, math.isqrt(rounds))
    starts = np.random.default_rng(seed).integers(0, rounds - length + 1, (draws, -(-rounds // length)))
    return np.asarray((starts[:, :, np.newaxis] + np.arange(length)).reshape(draws, -1)[:, :rounds])


def median_interval(samples: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the median of `samples` (rounds,), in the order in which they were measured."""
    return _interval(np.median(samples[block_draws(len(samples), seed)], axis=1))


def paired_ratio(a: NDArray[np.float64], b: NDArray[np.float64], seed: int = 0) -> Ratio:
    """Median of `a` over median of `b`, (rounds,) each and measured in the same rounds, and its 95 % interval."""
    rounds = min(len(a), len(b))
    a, b = a[:rounds], b[:rounds]
    drawn = block_draws(rounds, seed)
    ratios = np.median(a[drawn], axis=1) / np.median(b[drawn], axis=1)
    return Ratio(float(np.median(a) / np.median(b)), *_interval(ratios))


def unpaired_ratio(a: NDArray[np.float64], b: NDArray[np.float64], seed: int = 0) -> Ratio:
    """The same for two measurements that were made at different times."""
    above = np.median(a[block_draws(len(a), seed)], axis=1)
    below = np.median(b[block_draws(len(b), seed + 1)], axis=1)
    return Ratio(float(np.median(a) / np.median(b)), *_interval(above / below))


def _interval(drawn: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(drawn, [(100.0 - LEVEL) / 2.0, (100.0 + LEVEL) / 2.0]).tolist()
    return low, high
