"""Drift as one side of a comparison of two results."""

from __future__ import annotations

from ..accuracy.compare import Comparable, size_text
from .result import DriftResult


def comparable(result: DriftResult) -> Comparable:
    """The average precision of every artifact against its reference's faces."""
    return Comparable(
        kind=result.kind,
        conditions={"input size": size_text(result.input_px), "threshold": result.score_threshold},
        protocol="",
        rows={f"{row.artifact} to {row.reference}": row.per_image for row in result.comparisons},
        images=result.images,
        environment=result.environment,
        networks=result.networks,
    )
