"""Sections of the report for results that are not about one bundle: comparisons, choices, pairs of faces."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from ..accuracy.result import CompareResult
from ..choose.result import ChooseResult
from ..identity.result import VerificationResult
from .choose_plot import choose_plot
from .choose_text import candidate_rows
from .identity_text import verification_rows
from .tables import Table
from .text import change_rows


@dataclass(frozen=True)
class Section:
    """A heading, what was measured, a table, and a plot as the URL of its data where there is one."""

    title: str
    text: str
    table: Table
    plot: str = ""


def section(result: CompareResult | ChooseResult | VerificationResult) -> Section:
    """The section of a result."""
    if isinstance(result, CompareResult):
        return _compared(result)
    return _chosen(result) if isinstance(result, ChooseResult) else _verified(result)


def _compared(result: CompareResult) -> Section:
    header, *rows = change_rows(result)
    notes = (
        "a, b: average precision of both sides; points: b less a, in hundredths, with its 95 % interval; noise: the "
        "interval holds 0.",
        *result.notes,
    )
    text = f"Two results of {result.of}, on the {result.images.count} pictures that both have."
    return Section("What changed", text, Table(header, tuple(rows), notes))


def _chosen(result: ChooseResult) -> Section:
    header, *rows = candidate_rows(result)
    picked = result.recommendation
    name = "none" if picked.bundle is None else f"{picked.bundle} {picked.artifact}"
    notes = (
        "*: no other one is as fast and as accurate. ms: median of a whole call by the clock that candidates are "
        "compared by; p50, p90: by the wall clock.",
        *(f"Absent: {entry.name}, {entry.reason}" for entry in result.absent),
        *(f"Warning: {warning}" for warning in result.warnings),
    )
    text = (
        f"{result.images.count} pictures of {result.dataset.name}; the budget is {result.budget_ms:g} ms. "
        f"Recommended: {name}, {picked.reason}"
    )
    plot = _url(choose_plot(result)) if result.candidates else ""
    return Section("Bundles side by side", text, Table(header, tuple(rows), notes), plot)


def _verified(result: VerificationResult) -> Section:
    header, *rows = verification_rows(result)
    notes = (
        "Accuracy: mean over the folds, with its standard error. TAR: share of genuine pairs that are accepted at that "
        "share of impostors (FAR). Pairs lost: genuine and impostor pairs without a face in a picture.",
    )
    text = (
        f"{result.pairs}: {result.genuine} genuine pairs and {result.impostors} impostors of {result.images.count} "
        f"pictures, recogniser {result.embedder.name}."
    )
    return Section("Verification of faces", text, Table(header, tuple(rows), notes))


def _url(svg: str) -> str:
    """A standalone SVG as a URL, so that its styles stay its own."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode(errors='backslashreplace')).decode()}"
