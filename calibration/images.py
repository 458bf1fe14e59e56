"""Calibration image sets: pictures from a folder, letterboxed by the runtime's own preprocessing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import ImageError, RetinaFaceEdgeError
from ..runtime.images import find_images, read_image
from ..runtime.preprocess import letterbox, letterbox_for
from ..runtime.spec import Spec

Frame = NDArray[np.uint8]


class CalibrationError(RetinaFaceEdgeError):
    """Calibration images that cannot be used."""


@dataclass(frozen=True)
class ImageSet:
    """Network inputs for calibration, in a fixed order.

    `inputs` are uint8 of shape (1, H, W, 3); `digest` is the SHA-256 over all of them, so that equal pixels mean an
    equal set; `sizes` are the pictures' own widths and heights; `skipped` names the files that could not be
    read.
    """

    inputs: tuple[NDArray[Any], ...]
    digest: str
    source: str
    sizes: tuple[tuple[int, int], ...]
    skipped: tuple[str, ...] = ()


def image_set(spec: Spec, frames: Sequence[Frame], source: str, skipped: Sequence[str] = ()) -> ImageSet:
    """Letterbox BGR frames of any size into an `ImageSet`. Raises `CalibrationError` when there is none."""
    if not frames:
        raise CalibrationError(
            f"{source} holds no readable picture; calibration needs JPEG or PNG photographs, 100 are good"
        )
    inputs = []
    digest = hashlib.sha256()
    for frame in frames:
        out = np.empty(spec.input_shape, np.uint8)
        letterbox(spec, letterbox_for(spec, frame.shape[1], frame.shape[0]), frame, out)
        digest.update(out.tobytes())
        inputs.append(out)
    sizes = tuple((frame.shape[1], frame.shape[0]) for frame in frames)
    return ImageSet(tuple(inputs), digest.hexdigest(), source, sizes, tuple(skipped))


def read_folder(spec: Spec, folder: Path, limit: int, warn: Callable[[str], None]) -> ImageSet:
    """At most `limit` pictures of a folder, spread evenly over its sorted files.

    A file that is no picture is skipped, and named through `warn`. Raises `CalibrationError` when none can be read.
    """
    try:
        paths = find_images([folder])
    except ImageError as error:
        raise CalibrationError(f"--calibration: {error}") from error
    chosen = [paths[index * len(paths) // limit] for index in range(limit)] if len(paths) > limit else paths
    frames, skipped = [], []
    for path in chosen:
        try:
            frames.append(read_image(path))
        except ImageError as error:
            warn(f"skipped: {error}")
            skipped.append(path.name)
    return image_set(spec, frames, str(folder), skipped)
