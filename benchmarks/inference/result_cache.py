"""Measured values on disk, so that an interrupted run resumes.

One SQLite file, each value written as it comes. A key is a digest of all that decides the value; a value is the size of
the picture and named NumPy arrays, stored without pickling and bound to its key by a secret of this user (`sealed.py`).
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from retinaface_edge.runtime.io.arrays import packed, unpacked
from retinaface_edge.runtime.io.sealed import PRIVATE_FILE, PRIVATE_FOLDER, seal, unseal

from ..errors import MeasurementError

FILE = "results.sqlite"
SECONDS_TO_WAIT = 60.0
VALUE_BYTES = 1 << 30
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
            path = ":memory:" if folder is None else str(_prepared(folder))
            self._seal: Callable[[str, bytes], bytes] = _as_it_is if folder is None else seal
            self._unseal: Callable[[str, bytes], bytes | None] = _as_it_is if folder is None else unseal
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
        return self.get(key) is not None

    def get(self, key: str) -> Stored | None:
        """The value of that key; None when there is none, or it is not what was put there under this key."""
        query = "SELECT width, height, arrays FROM measured WHERE key = ?"
        try:
            row = self._database.execute(query, (key,)).fetchone()
            if row is None:
                return None
            width, height, sealed = row
            content = self._unseal(f"{key} {width} {height}", sealed) if isinstance(sealed, bytes) else None
            return None if content is None else Stored((width, height), unpacked(content, VALUE_BYTES))
        except (sqlite3.Error, ValueError, OSError) as error:
            raise MeasurementError(
                f"results cannot be read from the cache ({error}); delete it, or give another --cache"
            ) from error

    def put(self, values: Mapping[str, Stored]) -> None:
        """Keep values, all or none of them."""
        try:
            rows = [
                (key, *value.size, self._seal(f"{key} {value.size[0]} {value.size[1]}", packed(value.arrays)))
                for key, value in values.items()
            ]
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO measured VALUES (?, ?, ?, ?)", rows)
        except (OSError, sqlite3.Error) as error:
            raise MeasurementError(f"results cannot be written to the cache ({error}); give another --cache") from error


def _prepared(folder: Path) -> Path:
    """The database's file, private and no link, pipe or device, which SQLite would open. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
    seal("", b"")  # without a secret nothing can be kept
    path = folder / FILE
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(path, flags, PRIVATE_FILE)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    finally:
        os.close(handle)
    return path


def _as_it_is(key: str, content: bytes) -> bytes:
    return content
