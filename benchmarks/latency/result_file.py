"""Files of bench results: JSON of format 2 is written; formats 1 and 2 are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from retinaface_edge.runtime.io.atomic import write_whole
from retinaface_edge.runtime.records import RecordError, from_json, to_json

from ..errors import MeasurementError
from .result import BenchResult
from .result_v1 import bench_from_v1

KIND, FORMAT_VERSION = "bench", 2


def write_bench(path: Path, result: BenchResult) -> None:
    """Write the file, whole or not at all."""
    write_whole(path, json.dumps(to_json(result), ensure_ascii=False, allow_nan=False) + "\n")


def read_bench(path: Path) -> BenchResult:
    """Read a file that `write_bench`, or version 0.1, wrote.

    Raises `MeasurementError` for any other, naming the first field that is wrong.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MeasurementError(f"{path} is no readable JSON ({error}); give a file that bench --json wrote") from error
    try:
        return bench_from_json(content)
    except RecordError as error:
        raise MeasurementError(f"{path} is no result of bench: {error}") from error


def bench_from_json(content: Any) -> BenchResult:
    """The result of what `json` read from a file. Raises `RecordError`."""
    if not isinstance(content, dict) or content.get("kind") != KIND:
        kind = content.get("kind") if isinstance(content, dict) else None
        raise RecordError(f"its kind is {kind!r}, not {KIND!r}")
    version = content.get("format_version")
    if version == 1:
        return bench_from_v1(content)
    if version != FORMAT_VERSION:
        raise RecordError(f"it has format {version!r}, this version reads 1 and {FORMAT_VERSION}; measure again")
    return from_json(BenchResult, content)
