"""Teacher labels of photographs: detector and teacher run once on each, and the results are cached."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.detector import Detector
from retinaface_edge.runtime.errors import ImageError
from retinaface_edge.runtime.io.arrays import packed, unpacked
from retinaface_edge.runtime.io.atomic import write_atomic
from retinaface_edge.runtime.io.images import read_image
from retinaface_edge.runtime.io.untrusted import PICTURE_BYTES, read_file
from retinaface_edge.runtime.spec import VERTICES

from ..errors import TrainingError
from .augment import Photograph
from .teacher import LEAST_LOGIT, Teacher

if TYPE_CHECKING:
    from PIL.Image import Image

LEAST_FACE = 40.0
"""Pixels of the photograph; the teacher's crop of a smaller face is a blur."""
VALIDATION_PART = 8
ARRAYS_BYTES = 1 << 30
"""Every eighth photograph, by its digest, is kept for validation."""

Progress = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Photographs with faces that the teacher trusts, split by photograph; the files that could not be read."""

    training: tuple[Photograph, ...]
    validation: tuple[Photograph, ...]
    skipped: tuple[str, ...]


def label(
    paths: Sequence[Path], detector: Detector, teacher: Teacher, cache: Path | None, key: str, progress: Progress
) -> Labelled:
    """Let `detector` find faces in the photographs and `teacher` see their meshes.

    What was seen is kept in `cache`, one file a photograph under the digest of its bytes and `key`, so that a run that
    was interrupted resumes. Raises `TrainingError` when no face is left on either side of the split.
    """
    sides: tuple[list[Photograph], list[Photograph]] = ([], [])
    skipped = []
    for path in progress(paths):
        try:
            content = read_file(path, PICTURE_BYTES)
            frame = read_image(path, content)
        except (ImageError, OSError):
            skipped.append(path.name)
            continue
        digest = hashlib.sha256(content).hexdigest()
        entry = None if cache is None else cache / f"{hashlib.sha256((key + digest).encode()).hexdigest()}.npz"
        picture = _picture(frame)
        meshes, sizes = _seen(frame, picture, detector, teacher, entry)
        if len(sizes):
            sides[int(digest, 16) % VALIDATION_PART == 0].append(Photograph(path.name, picture, meshes, sizes, digest))
    training, validation = sides
    if not training or not validation:
        raise TrainingError(
            f"{len(training)} photographs to learn from and {len(validation)} to validate on have a face of "
            f"{LEAST_FACE:g} pixels that the teacher trusts; give a folder with a few hundred portraits"
        )
    return Labelled(tuple(training), tuple(validation), tuple(skipped))


def labels_key(checkpoint_digest: str, teacher_digest: str) -> str:
    """What `label` keeps its answers under: they are of one detector and one teacher."""
    return f"labels 1 {checkpoint_digest} {teacher_digest}"


def write_arrays(entry: Path, **arrays: NDArray[Any]) -> None:
    """Write the arrays as one `.npz`, atomically; the folder is created."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(entry, packed(arrays))


def read_arrays(entry: Path | None, *names: str) -> list[NDArray[Any]] | None:
    """Arrays that `write_arrays` wrote; None where there is no such file, or a damaged one."""
    if entry is None:
        return None
    try:
        known = unpacked(read_file(entry, ARRAYS_BYTES, links=False), ARRAYS_BYTES)
        return [known[name] for name in names]
    except (OSError, ValueError, KeyError):
        return None


def _seen(
    frame: NDArray[np.uint8], picture: Image, detector: Detector, teacher: Teacher, entry: Path | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if known := read_arrays(entry, "meshes", "sizes"):
        return known[0], known[1]
    meshes, sizes = [], []
    for face in detector.detect(frame):
        x1, y1, x2, y2 = face.box
        if min(x2 - x1, y2 - y1) >= LEAST_FACE:
            vertices, logit = teacher.mesh(picture, face)
            if logit > LEAST_LOGIT:
                meshes.append(vertices)
                sizes.append(np.sqrt((x2 - x1) * (y2 - y1)))
    result = np.array(meshes).reshape(len(meshes), VERTICES, 3), np.array(sizes)
    if entry is not None:
        write_arrays(entry, meshes=result[0], sizes=result[1])
    return result


def _picture(frame: NDArray[np.uint8]) -> Image:
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(frame[:, :, ::-1]))
