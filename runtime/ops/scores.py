"""Scores and their thresholds, by one logit or by face × object.

A threshold is compared with raw values in their own domain, integers where the artifact gives integers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..spec import ScoreCoding, Spec
from .quantization import QuantParams, RawOutput

PRODUCT_MARGIN = 1.0
"""Below the least logit that a face needs whatever its object value is: what rounding near a score of 1 amounts to."""


def least_logit(spec: Spec, score_threshold: float) -> float:
    """A candidate's `score_*` is at least this: exactly for one logit; for face × object, others reach it as well.

    √(face·object) ≥ t needs face ≥ t², as no sigmoid is above 1.
    """
    if spec.score is ScoreCoding.LOGIT:
        return logit(score_threshold)
    return logit(score_threshold * score_threshold) - PRODUCT_MARGIN


def product(face: NDArray[np.float64], object_: NDArray[np.float64]) -> NDArray[np.float64]:
    """√(sigmoid(face)·sigmoid(object)) of logits (n,), finite for logits that are not damage."""
    return np.asarray(1.0 / (np.sqrt(1.0 + np.exp(-face)) * np.sqrt(1.0 + np.exp(-object_))))


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(−logits))."""
    return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def reaches(score: RawOutput, params: QuantParams, least: float, out: NDArray[np.bool_]) -> None:
    """Write to `out` which raw scores reach the logit `least`, compared in the scores' own type."""
    if score.dtype == np.float32:
        np.greater_equal(score, np.float32(least), out=out)
        return
    lowest, highest = (-128, 127) if score.dtype == np.int8 else (0, 255)
    bound = least if math.isinf(least) else math.ceil(least / params.scale + params.zero_point)
    if bound > highest:
        out[:] = False
    else:
        np.greater_equal(score, score.dtype.type(max(bound, lowest)), out=out)


def logit(score: float) -> float:
    """The logit whose sigmoid is `score`; infinite for 0 and 1."""
    if score <= 0.0 or score >= 1.0:
        return math.copysign(math.inf, score - 0.5)
    return math.log(score / (1.0 - score))
