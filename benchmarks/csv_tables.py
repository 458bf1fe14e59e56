"""Results as CSV: one file per table, each figure with all its digits."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

from retinaface_edge.runtime.artifact import ArtifactId
from retinaface_edge.runtime.io.atomic import write_atomic
from retinaface_edge.runtime.text import printable

from .accuracy.result import CompareResult, EvalResult
from .choose.result import ChooseResult
from .cost.result import CostResult
from .drift.result import DriftResult
from .identity.result import IdentityFloor, VerificationResult
from .latency.result import BenchResult

Result: TypeAlias = (
    BenchResult | ChooseResult | CompareResult | CostResult | DriftResult | EvalResult | VerificationResult
)
Cell = str | int | float | bool | None
Row = dict[str, Cell]
Tables = Iterator[tuple[str, Iterable[Row]]]

KEYS = ("artifact", "reference", "part", "core")
"""Fields that tell a row from the others of its table."""
SKIPPED = ("samples", "cpu_samples", "roc")
"""Fields of a row that are not figures: what the figures are made from."""


def write_csv(folder: Path, results: Sequence[Result]) -> list[Path]:
    """Write the tables of results into `folder`, which is made; gives the files, in order.

    They are named after the kind of result and the table, `drift-faces.csv`; of a second result of a kind,
    `drift-2-faces.csv`. Raises `OSError`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [result.kind for result in results]
    written = []
    for index, result in enumerate(results):
        number = kinds[: index + 1].count(result.kind)
        name = result.kind if number == 1 else f"{result.kind}-{number}"
        for table, content in csv_tables(result).items():
            written.append(folder / f"{name}-{table}.csv")
            write_atomic(written[-1], content)
    return written


def csv_tables(result: Result) -> dict[str, str]:
    """The tables of a result as CSV by their names. Tables without a row are left out.

    Columns are the fields of the result's types, with those of their parts joined by `_`; a figure that was not
    measured is empty.
    """
    tables = {name: [dict(row) for row in rows] for name, rows in _tables(result)}
    return {name: _text(rows) for name, rows in tables.items() if rows}


def _tables(result: Result) -> Tables:
    if isinstance(result, DriftResult):
        yield from _drift(result)
    elif isinstance(result, EvalResult):
        yield "accuracy", map(_row, result.results)
        yield "recall-by-size", _parts(result.results, "recall_by_size")
        yield "curves", _curves(result)
        yield "pictures", _parts(result.results, "per_image")
    elif isinstance(result, VerificationResult):
        yield "accuracy", map(_row, result.results)
        yield "tar", _parts(result.results, "tar")
    elif isinstance(result, CompareResult):
        yield "changes", map(_row, result.changes)
    elif isinstance(result, BenchResult):
        yield "runners", map(_row, result.runners)
        yield "meshes", map(_row, result.meshes)
    elif isinstance(result, ChooseResult):
        yield "candidates", map(_row, result.candidates)
        yield "bundles", map(_row, result.bundles)
    else:
        yield "artifacts", map(_row, result.artifacts)
        yield "operators", _parts(result.artifacts, "operators")
        yield "estimates", _parts(result.artifacts, "estimates")


def _drift(result: DriftResult) -> Tables:
    comparisons = result.comparisons
    yield "faces", map(_row, comparisons)
    for name in ("by_size", "by_score"):
        rows = ((comparison, getattr(comparison.detections, name)) for comparison in comparisons)
        yield f"faces-{name.replace('_', '-')}", _below(rows)
    yield "outputs", _parts(comparisons, "tensors")
    yield "pictures", _parts(comparisons, "per_image")
    yield "layers", _parts(result.layers, "layers")
    yield "meshes", map(_row, result.meshes)
    if result.identity:
        yield from _identity(result.identity)


def _identity(floor: IdentityFloor) -> Tables:
    yield "identity", map(_row, floor.comparisons)
    yield "identity-by-size", _parts(floor.comparisons, "by_size")
    for name in ("tar", "tar_mirrored", "tar_reference_mirrored"):
        yield f"identity-{name.replace('_', '-')}", _parts(floor.comparisons, name)


def _curves(result: EvalResult) -> Iterator[Row]:
    for accuracy in result.results:
        for setting, curve in accuracy.curves.items():
            for recall, precision in zip(curve.recall, curve.precision, strict=True):
                yield {"artifact": accuracy.artifact, "setting": setting, "recall": recall, "precision": precision}


def _parts(parents: Iterable[Any], name: str) -> Iterator[Row]:
    """One row per part of each parent; the part is the field `name`, a tuple of dataclasses."""
    return _below((parent, getattr(parent, name)) for parent in parents)


def _below(parents: Iterable[tuple[Any, Iterable[Any]]]) -> Iterator[Row]:
    """Rows of parts, each with the fields that identify their parent."""
    for parent, parts in parents:
        key: Row = {name: _cell(getattr(parent, name)) for name in KEYS if hasattr(parent, name)}
        for part in parts:
            yield {**key, **_row(part)}


def _row(record: Any) -> Row:
    """The figures of a dataclass, with those of the dataclasses and mappings in it; sequences are other tables."""
    row: Row = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if field.name in SKIPPED or (isinstance(value, tuple) and not _is_pair(value)):
            continue
        if is_dataclass(value) and not isinstance(value, ArtifactId):
            row |= {f"{field.name}_{name}": cell for name, cell in _row(value).items()}
        elif isinstance(value, Mapping):
            row |= {f"{field.name}_{k}": _cell(v) for k, v in value.items() if not is_dataclass(v)}
        elif _is_pair(value):
            row |= {f"{field.name}_{axis}": cell for axis, cell in zip(("x", "y"), value, strict=True)}
        else:
            row[field.name] = _cell(value)
    return row


def _is_pair(value: object) -> bool:
    """Whether it is a size, (width, height)."""
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(one, int) for one in value)


def _cell(value: Any) -> Cell:
    if isinstance(value, Enum):
        return str(value.value)
    return printable(value) if isinstance(value, (ArtifactId, str)) else value


def _text(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
