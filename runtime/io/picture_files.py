"""Which files are pictures: those named, those inside folders, and those listed in a text file.

A file in a folder is judged by its content, whatever its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import ImageError
from .untrusted import open_file, path_below, read_text

SIGNATURES = (
    (0, b"\xff\xd8\xff"),  # JPEG
    (0, b"\x89PNG\r\n\x1a\n"),
    (0, b"GIF87a"),
    (0, b"GIF89a"),
    (0, b"II*\x00"),  # TIFF
    (0, b"MM\x00*"),
    (0, b"BM"),
    (8, b"WEBP"),
)
LONGEST_SIGNATURE = 12
LIST_SUFFIX = ".txt"
LIST_BYTES = 64 << 20
ANY_SIZE = 1 << 62
"""Of what is judged by its first bytes only."""
MOST_NAMED = 3


@dataclass(frozen=True)
class PictureFiles:
    """The pictures that were found, and the files in folders that are none."""

    pictures: tuple[Path, ...]
    skipped: tuple[Path, ...]

    @property
    def skipped_text(self) -> str:
        """One line about the skipped files; empty when there are none."""
        if not self.skipped:
            return ""
        count = len(self.skipped)
        named = ", ".join(str(path) for path in self.skipped[:MOST_NAMED])
        more = f" and {count - MOST_NAMED} more" if count > MOST_NAMED else ""
        return f"skipped, not {'a picture' if count == 1 else 'pictures'}: {named}{more}"


def picture_files(sources: list[str]) -> PictureFiles:
    """The pictures that `sources` name: files as they are, folders searched through and sorted, lists line by line.

    A list is a file that ends in `.txt`: one path per line, relative to the list's folder; empty lines and those that
    begin with `#` say nothing. Raises `ImageError` when a path does not exist, or a folder or list names no picture.
    """
    pictures: list[Path] = []
    skipped: list[Path] = []
    for source in map(Path, sources):
        if source.is_dir():
            inside = sorted(file for file in source.rglob("*") if file.is_file())
            found = [file for file in inside if is_picture(file)]
            if not found:
                raise ImageError(f"the folder {source} holds no picture among {len(inside)} files; give another folder")
            pictures += found
            skipped += [file for file in inside if file not in set(found)]
        elif source.suffix.lower() == LIST_SUFFIX and source.is_file() and not is_picture(source):
            pictures += _listed(source)
        elif source.exists():
            pictures.append(source)
        else:
            raise ImageError(
                f"{source} does not exist; give a picture, a folder of pictures, or a list of paths (.txt)"
            )
    return PictureFiles(tuple(pictures), tuple(skipped))


def is_picture(path: Path) -> bool:
    """Whether a file begins like a picture of a format that `read_image` reads. Raises `OSError`."""
    with open_file(path, ANY_SIZE) as file:
        start = file.read(LONGEST_SIGNATURE)
    return any(start[offset : offset + len(signature)] == signature for offset, signature in SIGNATURES)


def _listed(path: Path) -> list[Path]:
    try:
        lines = read_text(path, LIST_BYTES).splitlines()
    except OSError as error:
        raise ImageError(f"{path} is no list of paths ({error.strerror}); give one path per line") from error
    except UnicodeDecodeError as error:
        raise ImageError(f"{path} is no list of paths: it is not UTF-8 text; give one path per line") from error
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
