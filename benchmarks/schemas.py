"""JSON Schemas of the result files, generated from their types."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from retinaface_edge.runtime.records import schema

from .accuracy.result import CompareResult, EvalResult
from .drift.result import DriftResult
from .results import kind_of

RESULTS: tuple[type[object], ...] = (DriftResult, EvalResult, CompareResult)


def result_schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each result's kind, which is also its schema's file name, and its schema."""
    for result in RESULTS:
        kind = kind_of(result)
        yield kind, schema(result, f"Result of retinaface-edge {kind}")
