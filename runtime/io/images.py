"""Pictures from files, as frames. Needs Pillow, which is imported only here and only when a picture is read.

Grey, palette, RGBA, CMYK, 16-bit and EXIF-rotated pictures come out as 8-bit BGR, upright.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from .untrusted import PICTURE_BYTES, open_file

SUFFIXES = (".jpg", ".jpeg", ".png")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
"""By content, whatever the file's name; of an animation, its first frame."""
MAX_PIXELS = 178_956_970
MAX_SCANS = 100
"""Of a progressive JPEG. Encoders write about ten; each one costs a pass over the whole picture."""
LEAST_SIDE = 2
"""A file with a side of one pixel is a tracking pixel or a mistake, not a photograph."""


def find_images(paths: list[Path]) -> list[Path]:
    """The picture files that `paths` name: files as they are, folders searched through and sorted.

    Raises `ImageError` when a path does not exist or a folder holds no JPEG or PNG file.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            if not inside:
                raise ImageError(f"the folder {path} holds no JPEG or PNG file; give a folder of pictures")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise ImageError(f"{path} does not exist; give a JPEG or PNG file, or a folder of them")
    return found


def read_image(path: Path, content: bytes | None = None) -> NDArray[np.uint8]:
    """One picture as uint8 BGR, shape (height, width, 3), upright by its EXIF orientation.

    `content` is the file's bytes where they are at hand already; `path` then only names it.

    Raises `ImageError` when the file is no picture, is cut short, has a side of one pixel, or has more pixels than
    `MAX_PIXELS`.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImageError("reading pictures needs Pillow; run: pip install pillow") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with (
                io.BytesIO(content) if content is not None else open_file(path, PICTURE_BYTES) as file,
                Image.open(file, formats=FORMATS) as picture,
            ):
                if min(picture.size) < LEAST_SIDE:
                    raise ImageError(f"{path} is {picture.width}x{picture.height} pixels: give a photograph")
                if picture.format == "JPEG" and _scans(file) > MAX_SCANS:
                    raise ImageError(f"{path} is a JPEG of more than {MAX_SCANS} scans, which none but an attack has")
                if picture.width * picture.height > MAX_PIXELS:
                    raise ImageError(
                        f"{path} has {picture.width}x{picture.height} pixels, more than {MAX_PIXELS} are refused"
                    )
                upright = ImageOps.exif_transpose(picture)
                return _bgr(upright if upright is not None else picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, ImageError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path} cannot be read as a picture ({reason}); give a whole JPEG or PNG file") from error


def _scans(file: BinaryIO) -> int:
    """Start-of-scan markers in a JPEG. In compressed data 0xFF is never followed by their 0xDA."""
    place, count, last = file.tell(), 0, b""
    file.seek(0)
    while chunk := file.read(1 << 20):
        count += (last + chunk).count(b"\xff\xda")
        last = chunk[-1:]
    file.seek(place)
    return count


def _bgr(picture: object) -> NDArray[np.uint8]:
    from PIL import Image

    assert isinstance(picture, Image.Image)
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow would clip to 255 instead of scaling
        grey = (np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    rgb = np.asarray(picture.convert("RGB"))
    return np.ascontiguousarray(rgb[:, :, ::-1])
