"""Whether a gate had enough to judge: pictures, faces, and a value for every rule."""

from __future__ import annotations

from collections.abc import Sequence

from ..accuracy.result import EvalResult
from ..drift.result import DriftResult
from .figures import JudgedResult
from .gate import Gate, Outcome


def shortfalls(gate: Gate, result: JudgedResult, outcomes: Sequence[Outcome]) -> list[str]:
    """Why the outcomes are no verdict on the result, in a sentence each; empty when they are one."""
    found = list(_unjudged(outcomes))
    if isinstance(result, (DriftResult, EvalResult)):
        found += _missing_input(gate, result)
    return found


def _missing_input(gate: Gate, result: DriftResult | EvalResult) -> list[str]:
    needs, images, skipped = gate.needs, result.images.count, len(result.images.skipped)
    faces, found = _faces(result), []
    if images < needs.images:
        found.append(f"{images} pictures were measured, and the gate needs {needs.images}")
    if faces < needs.faces:
        found.append(f"the reference has {faces} faces on these pictures, and the gate needs {needs.faces}")
    if skipped > needs.unreadable_share * (images + skipped):
        share = f"{100.0 * needs.unreadable_share:g} %"
        found.append(f"{skipped} of {images + skipped} pictures cannot be read, and the gate allows {share}")
    return found


def _faces(result: DriftResult | EvalResult) -> int:
    """Faces that the artifacts could find: those of the reference, or those annotated."""
    if isinstance(result, DriftResult):
        counts = [one.detections.matched + one.detections.missed for one in result.comparisons]
    else:
        counts = [faces for row in result.results for faces in row.faces.values()]
    return max(counts, default=0)


def _unjudged(outcomes: Sequence[Outcome]) -> list[str]:
    """Rules that judged nothing of what they are about: one sentence for each, and each artifact and reference."""
    values: dict[tuple[str, str, str], bool] = {}
    found = []
    for outcome in outcomes:
        if outcome.figure is None:
            if not outcome.rule.optional:
                found.append(f"{outcome.rule.name}: its patterns match nothing that was measured")
            continue
        key = (outcome.rule.name, outcome.figure.artifact, outcome.figure.reference)
        values[key] = values.get(key, False) or outcome.passed is not None
    for (rule, artifact, reference), judged in values.items():
        if not judged:
            against = f" against {reference}" if reference and reference != artifact else ""
            found.append(f"{rule}: {artifact}{against} has no value to judge")
    return found
