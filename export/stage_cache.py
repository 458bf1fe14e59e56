"""Content-addressed cache of build stages: what has the same inputs, options and versions is made once.

A stage is known by its key and gives files by name. An entry is a folder named by the key, written beside its place and
renamed whole. Its list of digests is bound to the key by a secret of this user (`sealed.py`), so that what is read is
what a build of this user stored under this key; anything else is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from retinaface_edge.runtime.io.atomic import remove_folder
from retinaface_edge.runtime.io.sealed import PRIVATE_FOLDER, seal, unseal
from retinaface_edge.runtime.io.untrusted import read_file

Files = Mapping[str, bytes]

ROOMS = ("runtime", "calibration", "export")
"""Whose code decides what a build makes."""

ENTRIES_KEPT = 200
SCRATCH = ".new-"
LIST = "digests"
LIST_BYTES, FILE_BYTES = 1 << 20, 1 << 31


def default_folder() -> Path:
    """The user's cache folder, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retinaface-edge" / "stages"


def digest_of(content: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def stage_key(stage: str, inputs: Mapping[str, Any], libraries: Sequence[str]) -> str:
    """Digest of all that the result depends on: the stage, its inputs, the libraries that it runs, and our code."""
    parts = {
        "stage": stage,
        "inputs": dict(inputs),
        "versions": {name: version(name) for name in ("numpy", *libraries)},
        "code": _code(),
    }
    return digest_of(json.dumps(parts, sort_keys=True).encode())


@dataclass(frozen=True)
class StageRun:
    """One stage of a build: its key, whether its result was there already, and the seconds that it took."""

    stage: str
    key: str
    cached: bool
    seconds: float


class Stages:
    """Runs the stages of one build.

    `folder` None keeps nothing. `say` is called with the stages found in the cache, `finished` about every stage.
    """

    def __init__(
        self,
        folder: Path | None,
        say: Callable[[str], None] = lambda text: None,
        finished: Callable[[StageRun], None] = lambda run: None,
    ) -> None:
        self._folder = folder
        self._say = say
        self._finished = finished

    def run(
        self, stage: str, inputs: Mapping[str, Any], libraries: Sequence[str], make: Callable[[], Files]
    ) -> dict[str, bytes]:
        """The files of a stage: from the cache, or by `make`, which is called only if they are not there."""
        begin, key = time.monotonic(), stage_key(stage, inputs, libraries)
        files = read_entry(self._folder, key) if self._folder else None
        cached = files is not None
        if files is None:
            files = dict(make())
            if self._folder:
                write_entry(self._folder, key, files)
        else:
            self._say(f"{stage}: in the cache")
        self._finished(StageRun(stage, key, cached, round(time.monotonic() - begin, 3)))
        return files


def read_entry(folder: Path, key: str) -> dict[str, bytes] | None:
    """The files of an entry by name; None when there is none, or it does not have the bytes that were stored."""
    try:
        listed = unseal(key, read_file(folder / key / LIST, LIST_BYTES, links=False))
        if listed is None:
            return None
        digests = json.loads(listed)
        files = {name: read_file(folder / key / name, FILE_BYTES, links=False) for name in digests}
    except OSError:
        return None
    if any(digest_of(data) != digests[name] for name, data in files.items()):
        return None
    with suppress(OSError):
        os.utime(folder / key)
    return files


def write_entry(folder: Path, key: str, files: Files) -> None:
    """Store an entry. A cache that cannot be written is no error: the next build is slower, that is all."""
    digests = {name: digest_of(data) for name, data in files.items()}
    with suppress(OSError):
        listed = seal(key, json.dumps(digests, sort_keys=True).encode())
        folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
        with suppress(OSError):
            _prune(folder)
        scratch = Path(tempfile.mkdtemp(dir=folder, prefix=SCRATCH))
        try:
            for name, data in {**files, LIST: listed}.items():
                (scratch / name).write_bytes(data)
            if read_entry(folder, key) is None:  # else another build stored it meanwhile, and may be reading it
                _remove(folder / key)
                scratch.rename(folder / key)
        finally:
            remove_folder(scratch)


def _prune(folder: Path) -> None:
    """Remove what has not been used for longest, and what builds that were killed left a day ago."""
    used: dict[Path, float] = {}
    for entry in folder.iterdir():
        with suppress(FileNotFoundError):  # another build has just renamed or removed it
            used[entry] = entry.lstat().st_mtime
    entries = sorted(used, key=lambda entry: used[entry], reverse=True)
    finished = [entry for entry in entries if not entry.name.startswith(SCRATCH)]
    yesterday = time.time() - 24 * 3600
    abandoned = [entry for entry in entries if entry.name.startswith(SCRATCH) and used[entry] < yesterday]
    for entry in (*finished[ENTRIES_KEPT:], *abandoned):
        _remove(entry)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        remove_folder(entry)
    else:
        entry.unlink(missing_ok=True)


@cache
def _code() -> str:
    package = Path(__file__).parents[1]
    kinds = (".py", ".json", ".h")
    files = [file for room in ROOMS for file in sorted((package / room).rglob("*")) if file.suffix in kinds]
    return digest_of(b"".join(digest_of(file.read_bytes()).encode() for file in files))
