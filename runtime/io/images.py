"""Pictures from files, as frames. Needs Pillow, which is imported only here and only when a picture is read.

Grey, palette, RGBA, CMYK, 16-bit and EXIF-rotated pictures come out as 8-bit BGR, upright.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from .file_kinds import HEAD_BYTES, picture_format
from .untrusted import PICTURE_BYTES, read_file

FORMATS = ("JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF", "AVIF", "HEIC")
"""By content, whatever the file's name; AVIF and HEIC where Pillow or its plug-in reads them."""
MAX_PIXELS = 178_956_970
MAX_SCANS = 100
"""Of a progressive JPEG. Encoders write about ten; each one costs a pass over the whole picture."""
START_OF_SCAN, END_OF_JPEG = b"\xff\xda", b"\xff\xd9"
"""Markers. In compressed data 0xFF is never followed by these bytes."""
MORE_DATA = b"\x5a\xc3" * 64
"""What a decoder that still waits for pixels takes for some of them."""
LEAST_SIDE = 2
"""A file with a side of one pixel is a tracking pixel or a mistake, not a photograph."""


def read_image(path: Path, content: bytes | None = None) -> NDArray[np.uint8]:
    """One picture as uint8 BGR, shape (height, width, 3), upright by EXIF; of animations, the first frame.

    Its format is recognised by its content, whatever its name. `content` is the file's bytes if already read;
    `path` then only names it. A JPEG may lack its end marker, as some cameras write it, but no pixels.

    Raises `ImageError` when the file is not a picture, is cut short, has a side of one pixel, or has more pixels than
    `MAX_PIXELS`.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImageError("reading pictures needs Pillow; run: pip install pillow") from error
    try:
        content = read_file(path, PICTURE_BYTES) if content is None else content
        kind = _readable_format(path, content)
        try:
            return _decoded(path, content, kind)
        except OSError:
            if kind != "JPEG" or content.endswith(END_OF_JPEG):
                raise
            return _without_end(path, content)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, ImageError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path} cannot be read as a picture ({reason}); give a whole picture file") from error


def _readable_format(path: Path, content: bytes) -> str:
    """The picture's format. Raises `ImageError` when it is none, or this Pillow cannot read it."""
    from PIL import features

    kind = picture_format(content[:HEAD_BYTES])
    if kind is None:
        raise ImageError(f"{path} cannot be read as a picture: by its content it is none of {', '.join(FORMATS)}")
    if kind == "AVIF" and not features.check("avif"):
        raise ImageError(f"{path} is AVIF, which this Pillow cannot read; run: pip install 'pillow>=11.3'")
    if kind == "HEIF":
        try:
            from pillow_heif import register_heif_opener
        except ImportError as error:
            raise ImageError(f"{path} is HEIC, which needs a plug-in; run: pip install pillow-heif") from error
        register_heif_opener()
    return kind


def _decoded(path: Path, content: bytes, kind: str) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(content), formats=(kind,)) as picture:
            if min(picture.size) < LEAST_SIDE:
                raise ImageError(f"{path} is {picture.width}x{picture.height} pixels: give a photograph")
            if kind == "JPEG" and content.count(START_OF_SCAN) > MAX_SCANS:
                raise ImageError(f"{path} is a JPEG of more than {MAX_SCANS} scans, which only malicious files have")
            if picture.width * picture.height > MAX_PIXELS:
                raise ImageError(
                    f"{path} has {picture.width}x{picture.height} pixels; at most {MAX_PIXELS} are accepted"
                )
            upright = ImageOps.exif_transpose(picture)
            return _bgr(upright if upright is not None else picture)


def _without_end(path: Path, content: bytes) -> NDArray[np.uint8]:
    """A JPEG that lacks its end marker. It has all of its pixels when whatever follows it changes none of them.

    Raises `OSError` when pixels are missing.
    """
    content = content.rstrip(b"\xff")  # half of the end marker, which would make a marker of what follows
    frame = _decoded(path, content + END_OF_JPEG, "JPEG")
    if not np.array_equal(frame, _decoded(path, content + MORE_DATA + END_OF_JPEG, "JPEG")):
        raise OSError("the JPEG is cut short")
    return frame


def _bgr(picture: object) -> NDArray[np.uint8]:
    from PIL import Image

    assert isinstance(picture, Image.Image)
    if picture.mode.startswith("I"):  # 16-bit grey, which Pillow would clip to 255 instead of scaling
        grey = (np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    rgb = np.asarray(picture.convert("RGB"))
    return np.ascontiguousarray(rgb[:, :, ::-1])
