"""The Pareto front of time and accuracy, and the one candidate to recommend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from .result import Candidate, Recommendation

MoreAccurate = Callable[[Candidate, Candidate], bool]
"""Whether the first is more accurate than the second beyond noise."""


def with_front(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The candidates, marked where no other one dominates them: of equals, all are on the front."""
    return tuple(replace(one, on_front=not any(_dominates(other, one) for other in candidates)) for one in candidates)


def recommend(candidates: Sequence[Candidate], budget_ms: float, more_accurate: MoreAccurate) -> Recommendation:
    """The fastest of those that are as accurate as the best within the budget, as far as the pictures can tell.

    Within the budget means that nine of ten calls kept to it, by the wall clock.
    """
    within = [candidate for candidate in candidates if candidate.p90_ms <= budget_ms]
    if not within:
        fastest = min(candidates, key=lambda candidate: candidate.p90_ms)
        nearest = f"{fastest.name} comes nearest, {fastest.p90_ms:.2f} ms"
        reason = f"none keeps to {budget_ms:g} ms in nine of ten calls; {nearest}"
        return Recommendation(None, None, reason)
    best = max(within, key=lambda candidate: (candidate.ap, -candidate.ms))
    chosen = best
    for candidate in sorted(within, key=lambda candidate: candidate.ms):
        if candidate is best or not more_accurate(best, candidate):
            chosen = candidate
            break
    return Recommendation(chosen.bundle, chosen.artifact, _reason(chosen, best, within, budget_ms, len(candidates)))


def _reason(chosen: Candidate, best: Candidate, within: Sequence[Candidate], budget_ms: float, of: int) -> str:
    said = (
        f"AP {chosen.ap:.4f} in {chosen.ms:.2f} ms; p90 {chosen.p90_ms:.2f} ms keeps to {budget_ms:g} ms, as "
        f"{len(within)} of {of} do"
    )
    if chosen is best:
        return f"{said}; it is the most accurate of them"
    ahead = 100.0 * (best.ap - chosen.ap)
    lead = f"{ahead:.2f} points better, which is noise on these pictures," if ahead else "as accurate"
    return f"{said}; {best.name} is {lead} and takes {best.ms / chosen.ms:.2f} times as long"


def _dominates(a: Candidate, b: Candidate) -> bool:
    return a.ms <= b.ms and a.ap >= b.ap and (a.ms < b.ms or a.ap > b.ap)
