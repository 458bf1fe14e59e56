"""Which files are pictures: those named, those inside folders, and those listed in a text file.

A file in a folder is judged by its content, whatever its name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ImageError
from .file_kinds import HEAD_BYTES, picture_format
from .untrusted import open_file, path_below, read_text

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif")
LIST_SUFFIX = ".txt"
LIST_BYTES = 64 << 20
ANY_SIZE = 1 << 62
"""Of what is judged by its first bytes only."""
MOST_NAMED = 3


@dataclass(frozen=True)
class SkippedFile:
    """A file in a folder that is not a picture; `reason` says why it cannot be read, None when it can."""

    path: Path
    reason: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.reason is None else f"{self.path} ({self.reason})"


@dataclass(frozen=True)
class PictureFiles:
    """The pictures that were found, and the files in folders that are none."""

    pictures: tuple[Path, ...]
    skipped: tuple[SkippedFile, ...] = ()

    @property
    def skipped_text(self) -> str:
        """One line about the skipped files; empty when there are none."""
        if not self.skipped:
            return ""
        count = len(self.skipped)
        named = ", ".join(str(file) for file in self.skipped[:MOST_NAMED])
        more = f" and {count - MOST_NAMED} more" if count > MOST_NAMED else ""
        return f"skipped, not {'a picture' if count == 1 else 'pictures'}: {named}{more}"


def picture_files(sources: Sequence[str | Path], keep_damaged: bool = False) -> PictureFiles:
    """The pictures that `sources` name: files as they are, folders searched through and sorted, lists line by line.

    A list is a file that ends in `.txt`: one path per line, relative to the list's folder; empty lines and those that
    begin with `#` say nothing. With `keep_damaged`, what a folder has under a picture's name or cannot be opened stays
    among the pictures: for a reader that counts such files and says what is wrong with each. Raises `ImageError` when a
    path does not exist, or a folder or list names no picture.
    """
    pictures: list[Path] = []
    skipped: list[SkippedFile] = []
    for source in map(Path, sources):
        if source.is_dir():
            found, others = _in_folder(source, keep_damaged)
            pictures += found
            skipped += others
        elif source.suffix.lower() == LIST_SUFFIX and source.is_file() and not _is_picture(source):
            pictures += _listed(source)
        elif source.exists():
            pictures.append(source)
        else:
            raise ImageError(
                f"{source} does not exist; give a picture, a folder of pictures, or a list of paths (.txt)"
            )
    return PictureFiles(tuple(pictures), tuple(skipped))


def _in_folder(folder: Path, keep_damaged: bool) -> tuple[list[Path], list[SkippedFile]]:
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise ImageError(f"the folder {folder} cannot be read ({error.strerror}); give another folder") from error
    found: list[Path] = []
    others: list[SkippedFile] = []
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        try:
            picture, reason = _is_picture(file), None
        except OSError as error:
            picture, reason = False, error.strerror
        if picture or (keep_damaged and (reason or file.suffix.lower() in PICTURE_SUFFIXES)):
            found.append(file)
        else:
            others.append(SkippedFile(file, reason))
    if not found:
        raise ImageError(f"the folder {folder} holds no picture among {len(others)} files; give another folder")
    return found, others


def _is_picture(path: Path) -> bool:
    """Whether a file begins like a picture of a format that `read_image` reads. Raises `OSError`."""
    with open_file(path, ANY_SIZE) as file:
        return picture_format(file.read(HEAD_BYTES)) is not None


def _listed(path: Path) -> list[Path]:
    try:
        lines = read_text(path, LIST_BYTES).splitlines()
    except OSError as error:
        raise ImageError(f"{path} is not a list of paths ({error.strerror}); give one path per line") from error
    except UnicodeDecodeError as error:
        raise ImageError(f"{path} is not a list of paths: it is not UTF-8 text; give one path per line") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not (text := line.strip()) or text.startswith("#"):
            continue
        named = path_below(path.parent, text)
        if not named.is_file():
            raise ImageError(f"{path}, line {number}: {text} does not exist; paths are relative to the list's folder")
        found.append(named)
    if not found:
        raise ImageError(f"{path} lists no picture; give one path per line")
    return found
