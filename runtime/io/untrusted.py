"""Reading of untrusted files: opened without blocking, and checked before they are read.

What is refused raises `OSError` with the reason in `strerror`, as the operating system's own refusals do; text and JSON
that cannot be read raise `ValueError`. Callers turn both into their own error, which says what to do next.
"""

from __future__ import annotations

import codecs
import errno
import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

JSON_BYTES = 64 << 20
"""Most bytes of a JSON file, unless its reader states another limit."""
ANNOTATION_BYTES = 1 << 29
"""Most bytes of a file of annotations: COCO's largest has 450 MB."""
KEY_BYTES = 1 << 16
PICTURE_BYTES = 1 << 28
"""Most bytes of a picture that is read whole: 179 million pixels as PNG, compressed by half."""
DEPTH = 100
"""Most levels of lists and objects in JSON. Python's own limit is a thousand, in every function that walks over it."""

CHUNK = 1 << 20
KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a link",
}
STRINGS = rb'(?s)"[^"\\]*(?:\\.[^"\\]*)*"?'
NO_BRACKETS = rb"[^\[\]{}]+"


def open_file(path: Path, most: int, links: bool = True) -> BinaryIO:
    """The regular file at `path`, opened for reading, of at most `most` bytes.

    Pipes, devices and directories are refused without waiting for them, and so is a link where `links` is false.
    Raises `OSError`.
    """
    # A device may act on being opened, so its kind is asked for first; it is asked again of what was opened.
    _check_kind(path, os.stat(path, follow_symlinks=links))
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | (0 if links else os.O_NOFOLLOW)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        found = os.fstat(file.fileno())
        _check_kind(path, found)
        if found.st_size > most:
            raise _too_large(path, most)
    except BaseException:
        file.close()
        raise
    return file


def read_file(path: Path, most: int, links: bool = True) -> bytes:
    """The bytes of the regular file at `path`. Raises `OSError` as `open_file` does, and when it grows past `most`."""
    with open_file(path, most, links) as file:
        content = bytearray()
        while chunk := file.read(min(CHUNK, most + 1 - len(content))):
            content += chunk
            if len(content) > most:
                raise _too_large(path, most)
    return bytes(content)


def read_text(path: Path, most: int = JSON_BYTES, errors: str = "strict") -> str:
    """The text of a file, as `decoded` reads it. Raises `OSError`, and `ValueError` when it is not text."""
    return decoded(read_file(path, most), errors)


def read_json(path: Path, most: int = JSON_BYTES, links: bool = True) -> Any:
    """The value in a JSON file. Raises `OSError`, and `ValueError` when it is not JSON or is nested too deeply."""
    return parse_json(read_file(path, most, links))


def parse_json(content: bytes) -> Any:
    """The value that JSON bytes are. Raises `ValueError` when they are none, or are nested deeper than `DEPTH`."""
    import json  # late: a tenth of what importing `runtime` takes

    text = decoded(content)
    if content.count(b"[") + content.count(b"{") > DEPTH and _depth(text.encode()) > DEPTH:
        raise ValueError(f"it is nested deeper than {DEPTH} levels")
    return json.loads(text)


def decoded(content: bytes, errors: str = "strict") -> str:
    """UTF-8 text with or without a byte order mark, or UTF-16 with one, as editors on Windows write it.

    Raises `ValueError` for other bytes.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors)
    return content.decode("utf-8-sig", errors)


def path_below(folder: Path, name: str) -> Path:
    """The file that a list names, relative to `folder`. Lists made on Windows separate folders by backslashes."""
    path = folder / name
    return folder / name.replace("\\", "/") if "\\" in name and not os.path.lexists(path) else path


def _depth(content: bytes) -> int:
    """Levels of brackets outside strings, counted without parsing."""
    brackets = np.frombuffer(re.sub(NO_BRACKETS, b"", re.sub(STRINGS, b"", content)), np.uint8)
    steps = np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1)
    return int(np.cumsum(steps).max(initial=0))


def _check_kind(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = KINDS.get(stat.S_IFMT(found.st_mode), "of an unknown kind")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


def _too_large(path: Path, most: int) -> OSError:
    return OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
