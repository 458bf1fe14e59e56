"""Measured values on disk, so that an interrupted run goes on where it stopped.

One SQLite file, each value written as it comes. A key is a digest of all that decides the value; a value is the size of
the picture and named NumPy arrays, stored without pickling.
"""

from __future__ import annotations

import io
import os
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..errors import MeasurementError

FILE = "results.sqlite"
SECONDS_TO_WAIT = 60.0
TABLE = (
    "CREATE TABLE IF NOT EXISTS measured (key TEXT PRIMARY KEY, width INTEGER, height INTEGER, arrays BLOB NOT NULL)"
)

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Stored:
    """One value: the picture's width and height in pixels, and arrays by name."""

    size: tuple[int, int]
    arrays: Arrays


def default_folder() -> Path:
    """Where values are kept unless told otherwise: `retinaface-edge` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retinaface-edge"


class ResultCache:
    """Values by key. `folder` None keeps them in memory only. Use it in a `with` statement.

    Raises `MeasurementError` when the folder cannot hold it, or holds something else under its name.
    """

    def __init__(self, folder: Path | None) -> None:
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            path = ":memory:" if folder is None else str(folder / FILE)
            self._database = sqlite3.connect(path, timeout=SECONDS_TO_WAIT)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(TABLE)
        except (OSError, sqlite3.Error) as error:
            raise MeasurementError(f"results cannot be kept in {folder} ({error}); give another --cache") from error

    def __enter__(self) -> ResultCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(sqlite3.Error):
            self._database.close()

    def __contains__(self, key: str) -> bool:
        return self._database.execute("SELECT 1 FROM measured WHERE key = ?", (key,)).fetchone() is not None

    def get(self, key: str) -> Stored | None:
        """The value of that key; None when there is none."""
        query = "SELECT width, height, arrays FROM measured WHERE key = ?"
        try:
            row = self._database.execute(query, (key,)).fetchone()
            if row is None:
                return None
            width, height, content = row
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return Stored((width, height), dict(arrays))
        except (sqlite3.Error, ValueError, OSError, BadZipFile) as error:
            raise MeasurementError(
                f"results cannot be read from the cache ({error}); delete it, or give another --cache"
            ) from error

    def put(self, values: Mapping[str, Stored]) -> None:
        """Keep values, all or none of them; a key that has a value keeps it."""
        rows = []
        for key, value in values.items():
            buffer = io.BytesIO()
            np.savez(buffer, **value.arrays)  # type: ignore[arg-type]
            rows.append((key, *value.size, buffer.getvalue()))
        try:
            with self._database:
                self._database.executemany("INSERT OR IGNORE INTO measured VALUES (?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise MeasurementError(f"results cannot be written to the cache ({error}); give another --cache") from error
