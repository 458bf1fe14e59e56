"""Results that were measured before, so that an interrupted run goes on where it stopped.

One SQLite file, each result written as it comes. A key is a digest of all that decides the result; a value is one NumPy
array, stored without pickling.
"""

from __future__ import annotations

import io
import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from .network_under_test import MeasurementError

FILE = "results.sqlite"
SECONDS_TO_WAIT = 60.0


def default_folder() -> Path:
    """Where results are kept unless told otherwise: `retinaface-edge` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retinaface-edge"


class ResultCache:
    """Arrays by key. `folder` None keeps them in memory only. Use it in a `with` statement.

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
            self._database.execute("CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
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
        return self._database.execute("SELECT 1 FROM results WHERE key = ?", (key,)).fetchone() is not None

    def __getitem__(self, key: str) -> NDArray[np.float64]:
        row = self._database.execute("SELECT value FROM results WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise KeyError(key)
        return np.asarray(np.load(io.BytesIO(row[0]), allow_pickle=False))

    def missing(self, keys: Iterable[str]) -> set[str]:
        """Those of `keys` that have no result yet."""
        return {key for key in keys if key not in self}

    def put(self, results: Mapping[str, NDArray[np.float64]]) -> None:
        """Keep results, all or none of them."""
        rows = []
        for key, array in results.items():
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            rows.append((key, buffer.getvalue()))
        try:
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO results VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise MeasurementError(f"results cannot be written to the cache ({error}); give another --cache") from error
