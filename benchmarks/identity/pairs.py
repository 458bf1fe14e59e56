"""Labelled pairs of pictures, or of templates of several, from a CSV file.

The file has the columns `first`, `second`, `same` and, if folds are to be those of a protocol, `fold`. `first` and
`second` are paths, below the file's folder unless absolute; several pictures of one person in one field, separated by
`;`, are a template. `same` is 1 or 0.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from retinaface_edge.runtime.io.untrusted import ANNOTATION_BYTES, read_text

from ..errors import MeasurementError

TRUE, FALSE = ("1", "true", "yes"), ("0", "false", "no")


@dataclass(frozen=True)
class Pair:
    """Two templates, each one picture or several of one person, and whether it is the same person in both."""

    first: tuple[Path, ...]
    second: tuple[Path, ...]
    same: bool
    fold: int | None = None


def read_pairs(path: Path) -> tuple[Pair, ...]:
    """The pairs of a CSV file. Raises `MeasurementError` that names the line which is wrong."""
    try:
        text = read_text(path, ANNOTATION_BYTES)
    except OSError as error:
        raise MeasurementError(
            f"{path} cannot be read ({error.strerror}); give a CSV file with the columns first,second,same[,fold]"
        ) from error
    except UnicodeDecodeError as error:
        raise MeasurementError(f"{path} is not text in UTF-8") from error
    rows = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    missing = {"first", "second", "same"} - set(rows.fieldnames or ())
    if missing:
        raise MeasurementError(
            f"{path} lacks the columns {', '.join(sorted(missing))}; its first line names the columns"
        )
    try:
        pairs = tuple(_pair(path, rows.line_num, row) for row in rows)
    except csv.Error as error:
        raise MeasurementError(f"{path}, line {rows.line_num}: {error}") from error
    if not pairs:
        raise MeasurementError(f"{path} holds no pair")
    if len({pair.fold is None for pair in pairs}) > 1:
        raise MeasurementError(f"{path} gives a fold for some pairs only; give it for all or for none")
    return pairs


def _pair(path: Path, line: int, row: dict[str, str | None]) -> Pair:
    first, second = (_template(path.parent, row[name] or "") for name in ("first", "second"))
    same, fold = (row["same"] or "").strip().lower(), (row.get("fold") or "").strip()
    if not first or not second:
        raise MeasurementError(f"{path}, line {line}: a pair needs a picture in first and in second")
    if same not in TRUE + FALSE:
        raise MeasurementError(f"{path}, line {line}: same should be 1 or 0, not {same!r}")
    if fold and not (fold.isascii() and fold.isdigit()):
        raise MeasurementError(f"{path}, line {line}: fold should be a whole number, not {fold!r}")
    return Pair(first, second, same in TRUE, int(fold) if fold else None)


def _template(folder: Path, field: str) -> tuple[Path, ...]:
    names = (name.strip().replace("\\", "/") for name in field.split(";"))
    return tuple(folder / name for name in names if name)
