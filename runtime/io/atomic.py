"""Atomic file writes."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def write_atomic(path: Path, content: str | bytes, mode: int = 0o666) -> None:
    """Write a file atomically: it is complete or absent.

    A new file has the mode that the umask leaves of `mode`, an old one keeps its own. A link stays one, and what is no
    file, such as `/dev/null`, is written to. Odd bytes of names in text are escaped, as JSON reads them. Raises
    `OSError`.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    scratch = scratch_beside(path)
    handle = os.open(scratch, FLAGS, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        keep_mode(path, scratch)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as the system lets us; what failed once is tried once more."""
    import shutil  # late: it brings three compressors

    for _ in range(2):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return


def scratch_beside(path: Path) -> Path:
    """A name beside `path` that nothing has, with its suffix."""
    return path.parent / f".{path.stem[:32]}.{os.urandom(8).hex()}{path.suffix[:8]}"


def keep_mode(old: Path, new: Path) -> None:
    """Give `new` the permissions of `old`, if there is an `old`."""
    try:
        mode = stat.S_IMODE(old.stat().st_mode)
    except FileNotFoundError:
        return
    if stat.S_IMODE(new.stat().st_mode) != mode:
        os.chmod(new, mode)


def part_of(path: Path) -> Path:
    """Where a file that takes long is written until it is whole: a killed run leaves there what it had found."""
    return path.with_name(f"{path.stem[:200]}.part{path.suffix}")


class GrowingFile:
    """A text file that takes long: written line by line beside its name, and given its name when it is closed.

    What is no file, such as `/dev/null` or a pipe, is written to as it is. A file that got no line takes no name until
    it is closed with `empty`. Raises `OSError` at once when it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(os.path.realpath(path))
        direct = self._path.exists() and not self._path.is_file() and not self._path.is_dir()
        self._part = None if direct else part_of(self._path)
        if self._part is None:
            handle = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        else:
            if self._path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            self._part.unlink(missing_ok=True)
            handle = os.open(self._part, FLAGS, 0o666)
        self._file = os.fdopen(handle, "wb", buffering=0)
        self._bytes = 0

    def line(self, text: str) -> None:
        """Write a line, and have the system know it before the next; where that fails, nothing of it stays."""
        data = memoryview((text + "\n").encode(errors="backslashreplace"))
        written = 0
        try:
            while written < len(data):
                written += self._file.write(data[written:]) or 0
        except BaseException:
            if self._part is not None:
                os.ftruncate(self._file.fileno(), self._bytes)
            raise
        self._bytes += written

    def close(self, empty: bool = True) -> None:
        """Give it its name; without lines, only if `empty`."""
        self._file.close()
        if self._part is None:
            return
        if self._bytes == 0 and not empty:
            self._part.unlink(missing_ok=True)
            return
        keep_mode(self._path, self._part)
        os.replace(self._part, self._path)
