"""Calibration image sets: pictures from a folder, letterboxed by the runtime's own preprocessing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.errors import ImageError, RetinaFaceEdgeError
from retinaface_edge.runtime.io.images import read_image
from retinaface_edge.runtime.io.picture_files import picture_files
from retinaface_edge.runtime.io.untrusted import PICTURE_BYTES, read_file
from retinaface_edge.runtime.ops.letterbox import letterbox, letterbox_for
from retinaface_edge.runtime.spec import Spec
from retinaface_edge.runtime.text import printable

Frame = NDArray[np.uint8]


Warn = Callable[[str], None]


class CalibrationError(RetinaFaceEdgeError):
    """Calibration images that cannot be used."""


class ImageSource(Protocol):
    """Where calibration images come from. Equal digests mean equal images; they are read only when they are needed."""

    @property
    def digest(self) -> str:
        """What tells this source from every other."""

    def read(self, spec: Spec, warn: Warn) -> ImageSet:
        """The images as inputs of `spec`; `warn` is called with what was left out.

        Raises `CalibrationError` when there is none.
        """


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

    def read(self, spec: Spec, warn: Warn) -> ImageSet:
        """Images in memory are their own `ImageSource`."""
        return self


@dataclass(frozen=True)
class ImageFolder:
    """Photographs of a folder as an `ImageSource`: their digest is of the files' names and bytes, none is decoded."""

    folder: Path
    paths: tuple[Path, ...]
    digest: str

    def read(self, spec: Spec, warn: Warn) -> ImageSet:
        """Decode them. A file that is not a picture is skipped, and named through `warn`.

        Raises `CalibrationError` when none can be read, or when the folder has changed since its digest was taken.
        """
        frames, skipped, digest = [], [], hashlib.sha256()
        for path in self.paths:
            content = _content(path)
            _add(digest, path, content)
            try:
                frames.append(read_image(path, content))
            except ImageError as error:
                warn(f"skipped: {error}")
                skipped.append(printable(path.name))
        if digest.hexdigest() != self.digest:
            raise CalibrationError(f"{self.folder} was changed while it was read; build again when it is complete")
        return image_set(spec, frames, str(self.folder), skipped)


def image_set(spec: Spec, frames: Sequence[Frame], source: str, skipped: Sequence[str] = ()) -> ImageSet:
    """Letterbox BGR frames of any size into an `ImageSet`. Raises `CalibrationError` when there is none."""
    if not frames:
        raise CalibrationError(f"{source} holds no readable picture; calibration needs about 100 photographs")
    inputs = []
    digest = hashlib.sha256()
    for frame in frames:
        out = np.empty(spec.input_shape, np.uint8)
        letterbox(spec, letterbox_for(spec, frame.shape[1], frame.shape[0]), frame, out)
        digest.update(out.tobytes())
        inputs.append(out)
    sizes = tuple((frame.shape[1], frame.shape[0]) for frame in frames)
    return ImageSet(tuple(inputs), digest.hexdigest(), source, sizes, tuple(skipped))


def image_folder(folder: Path, limit: int, warn: Warn = lambda text: None) -> ImageFolder:
    """At most `limit` pictures of a folder, spread evenly over its sorted files, as a source.

    `warn` is called for files that are not pictures. Raises `CalibrationError` when the folder is none, or holds no
    picture.
    """
    try:
        files = picture_files([folder], keep_damaged=True)
    except ImageError as error:
        raise CalibrationError(f"--calibration: {error}") from error
    if files.skipped:
        warn(files.skipped_text)
    paths = files.pictures
    chosen = [paths[index * len(paths) // limit] for index in range(limit)] if len(paths) > limit else paths
    digest = hashlib.sha256()
    for path in chosen:
        _add(digest, path, _content(path))
    return ImageFolder(folder, tuple(chosen), digest.hexdigest())


def _content(path: Path) -> bytes:
    """A file's bytes; none when it cannot be read, which then counts as no picture."""
    try:
        return read_file(path, PICTURE_BYTES)
    except OSError:
        return b""


def _add(digest: hashlib._Hash, path: Path, content: bytes) -> None:
    digest.update(f"{path.name} {len(content)}\n".encode(errors="surrogateescape"))
    digest.update(content)
