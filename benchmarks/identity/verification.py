"""Face verification from the scores of labelled pairs: accuracy by folds, ROC, and TAR at FAR.

Definitions as LFW (Huang et al., 2007, "View 2") and IJB-C (Maze et al., 2018) have them. A pair is accepted when its
score is at least the threshold. TAR is the share of genuine pairs accepted, FAR that of impostor pairs. A pair without
a score, because a face was not found, is never accepted: such a genuine pair counts as missed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
FOLDS = 10
Z95 = 1.959963984540054
"""Half the width of the normal distribution's middle 95 %, in deviations."""


@dataclass(frozen=True)
class TarAtFar:
    """The largest share of genuine pairs accepted while at most `far` of the impostors are.

    `threshold` is the lowest score at which that holds; `tar_low` and `tar_high` the 95 % Wilson interval of `tar` over
    the genuine pairs, at that threshold.
    """

    far: float
    tar: float
    tar_low: float
    tar_high: float
    threshold: float


@dataclass(frozen=True)
class FoldAccuracy:
    """Share of pairs judged rightly: mean and standard error over the folds, each with the others' best threshold."""

    mean: float
    standard_error: float
    folds: tuple[float, ...]


def tar_at_far(genuine: NDArray[np.float64], impostor: NDArray[np.float64], far: float) -> TarAtFar | None:
    """TAR at one FAR for scores (n,) and (m,), NaN where there is none; None where m impostors cannot carry it.

    They carry it if one accepted impostor is no more than `far` of them.
    """
    if not len(genuine) or far * len(impostor) < 1.0 - 1e-9:
        return None
    allowed = math.floor(far * len(impostor) + 1e-9)
    lowered = np.where(np.isnan(impostor), -np.inf, impostor)
    # Impostors of equal score are accepted together, so all scores above the first one too many are allowed.
    first_refused = np.sort(lowered)[::-1][allowed] if allowed < len(lowered) else -np.inf
    scores = np.concatenate([genuine, impostor])
    above = scores[scores > first_refused]
    threshold = float(above.min()) if len(above) else float(np.nextafter(first_refused, math.inf))
    accepted = int(np.count_nonzero(genuine > first_refused))
    low, high = wilson(accepted, len(genuine))
    return TarAtFar(far, accepted / len(genuine), low, high, threshold)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson, 1927)."""
    share, square = successes / trials, Z95**2 / trials
    middle = (share + square / 2.0) / (1.0 + square)
    half = Z95 * math.sqrt(share * (1.0 - share) / trials + square / (4.0 * trials)) / (1.0 + square)
    return min(max(middle - half, 0.0), share), max(min(middle + half, 1.0), share)


def tars(genuine: NDArray[np.float64], impostor: NDArray[np.float64]) -> tuple[TarAtFar, ...]:
    """TAR at those of `FARS` that the impostors carry."""
    found = (tar_at_far(genuine, impostor, far) for far in FARS)
    return tuple(one for one in found if one is not None)


def roc(scores: NDArray[np.float64], same: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ROC curve: FAR and TAR (k,), one point per distinct score, from (0, 0) on, for pairs (n,).

    Pairs without a score (NaN) are never accepted, so the curve ends below (1, 1) where there are any.
    """
    found = ~np.isnan(scores)
    order = np.argsort(-scores[found], kind="stable")
    ordered, positive = scores[found][order], same[found][order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1) if len(ordered) else np.empty(0, np.intp)
    accepted = np.asarray(last + 1, np.float64)
    right = np.cumsum(positive).astype(np.float64)[last]
    impostors, genuine = max(int(np.sum(~same)), 1), max(int(np.sum(same)), 1)
    return np.append(0.0, (accepted - right) / impostors), np.append(0.0, right / genuine)


def fold_accuracy(scores: NDArray[np.float64], same: NDArray[np.bool_], fold: NDArray[np.intp]) -> FoldAccuracy | None:
    """Accuracy by cross-validation, as LFW's View 2 reports it; None with fewer than two folds.

    `fold` (n,) is the number of the fold of each pair. Every fold is judged with the threshold that is most accurate on
    all others together: the lowest of several.
    """
    numbers = np.unique(fold)
    if len(numbers) < 2:
        return None
    lowered = np.where(np.isnan(scores), -np.inf, scores)
    accuracies = []
    for number in numbers:
        held_out = fold == number
        threshold = best_threshold(lowered[~held_out], same[~held_out])
        accuracies.append(float(np.mean((lowered[held_out] >= threshold) == same[held_out])))
    error = float(np.std(accuracies, ddof=1) / math.sqrt(len(accuracies)))
    return FoldAccuracy(float(np.mean(accuracies)), error, tuple(accuracies))


def best_threshold(scores: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """The lowest of the finite scores, or infinity, that as a threshold judges most of the pairs (n,) rightly."""
    candidates = np.append(np.unique(scores[np.isfinite(scores)]), np.inf)
    genuine, impostor = np.sort(scores[same]), np.sort(scores[~same])
    accepted = len(genuine) - np.searchsorted(genuine, candidates, side="left")
    rejected = np.searchsorted(impostor, candidates, side="left")
    return float(candidates[np.argmax(accepted + rejected)])


def folds_in_order(same: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Fold numbers (pairs,): consecutive parts of the genuine pairs, and of the impostors.

    For LFW's list, which has both kinds in every fold, these are its own folds.
    """
    folds = np.empty(len(same), np.intp)
    for kind in (same, ~same):
        folds[kind] = consecutive_folds(int(np.count_nonzero(kind)))
    return folds


def consecutive_folds(pairs: int, folds: int = FOLDS) -> NDArray[np.intp]:
    """Fold numbers (pairs,) of consecutive, equal parts, as LFW's list is ordered."""
    return np.arange(pairs) * folds // max(pairs, 1)
