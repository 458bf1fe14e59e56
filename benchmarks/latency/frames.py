"""Photographs as the frames of a camera: all of one size, filled to the edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from retinaface_edge.runtime.errors import ImageError
from retinaface_edge.runtime.io.images import read_image
from retinaface_edge.runtime.io.picture_files import picture_files

from .runners import Frame


def camera_frames(
    paths: Sequence[Path], width: int, height: int, limit: int, warn: Callable[[str], None] = lambda text: None
) -> list[Frame]:
    """At most `limit` of the pictures that `paths` name, evenly spread, as uint8 BGR (height, width, 3).

    `warn` is called for files in folders that are not pictures. Raises `ImageError` when a picture cannot be read.
    """
    found = picture_files(paths)
    if found.skipped:
        warn(found.skipped_text)
    files = found.pictures
    chosen = [files[index] for index in np.linspace(0, len(files) - 1, min(limit, len(files))).round().astype(int)]
    return fill([read_image(file) for file in chosen], width, height)


def fill(pictures: Sequence[Frame], width: int, height: int) -> list[Frame]:
    """Each picture scaled until it covers `width` × `height`, and cropped to it around the centre."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImageError("reading pictures needs Pillow; run: pip install pillow") from error
    fitted = (ImageOps.fit(Image.fromarray(picture), (width, height)) for picture in pictures)
    return [np.array(frame) for frame in fitted]
