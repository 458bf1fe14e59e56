"""JSON Schemas of results, gates and budgets, generated from their types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from retinaface_edge.runtime.host.targets import Budget
from retinaface_edge.runtime.records import schema

from .accuracy.result import CompareResult, EvalResult
from .choose.result import ChooseResult
from .drift.result import DriftResult
from .gates.gate import Gate
from .identity.result import VerificationResult
from .latency.result import BenchResult
from .results import kind_of

RESULTS: tuple[type[object], ...] = (
    DriftResult,
    EvalResult,
    VerificationResult,
    CompareResult,
    BenchResult,
    ChooseResult,
)


def result_schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each result's kind, which is also its schema's file name, and its schema."""
    for result in RESULTS:
        kind = kind_of(result)
        yield kind, schema(result, f"Result of retinaface-edge {kind}")


def gate_schemas() -> dict[str, dict[str, Any]]:
    """The schemas of a gate file and of one budget, by file name."""
    return {"gate": schema(Gate, "Gate of retinaface-edge"), "budget": schema(Budget, "Budget of retinaface-edge")}
