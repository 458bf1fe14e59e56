"""What `detect` writes about faces besides JSON: CSV, meshes, crops and sentences."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.errors import ImageError
from retinaface_edge.runtime.io.atomic import write_atomic
from retinaface_edge.runtime.ops.faces import Faces, column_names
from retinaface_edge.runtime.text import printable

Ids = NDArray[np.int64] | None


class FaceTable:
    """Faces as CSV: one row per face, with the picture or the frame and its time, and the id where there is one."""

    def __init__(self, landmarks: int, columns: Sequence[str]) -> None:
        self._text = io.StringIO()
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow([*columns, "id", *column_names(landmarks)])

    def add(self, place: Sequence[object], faces: Faces, ids: Ids = None) -> None:
        """Add the faces of one picture or frame; `place` has its values of the first columns."""
        for index, values in enumerate(faces.table().tolist()):
            self._writer.writerow([*place, "" if ids is None else ids[index], *values])

    def write(self, path: Path) -> None:
        """Write the file atomically. Raises `OSError`."""
        write_atomic(path, self._text.getvalue())


def sentence(path: Path, width: int, height: int, faces: Faces) -> str:
    """One line about a picture, and one per face."""
    count = f"{len(faces)} face{'' if len(faces) == 1 else 's'}"
    boxes = "".join(f"\n  {face.score:.3f} at " + ", ".join(f"{value:.0f}" for value in face.box) for face in faces)
    return f"{printable(path)} ({width}x{height}): {count}{boxes}"


def write_crops(folder: Path, name: str, frame: NDArray[np.uint8], faces: Faces) -> None:
    """Write the aligned crop of each face, 112 × 112, as `NAME-0.png` and so on."""
    from PIL import Image

    from retinaface_edge.runtime.ops.align import aligned

    for index, face in enumerate(faces):
        content = io.BytesIO()
        Image.fromarray(aligned(frame, face)[:, :, ::-1]).save(content, "PNG")
        write_atomic(folder / f"{name}-{index}.png", content.getvalue())


def write_meshes(folder: Path, kind: str, path: Path, frame: NDArray[np.uint8], faces: Faces) -> None:
    """Write one mesh file per face."""
    from retinaface_edge.runtime.mesh.files import mesh_files

    folder.mkdir(parents=True, exist_ok=True)
    stem = printable(path.stem).replace("\\", "_")  # the files name each other, in UTF-8 and on one line
    for index, face in enumerate(faces):
        assert face.vertices is not None
        for name, content in mesh_files(kind, f"{stem}-{index}", face.vertices, frame).items():
            write_atomic(folder / name, content)


def write_blurred(path: Path, frame: NDArray[np.uint8], faces: Faces) -> None:
    """Write the picture with its faces covered. Raises `ImageError`."""
    from PIL import Image

    from retinaface_edge.runtime.io.anonymise import anonymise

    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(anonymise(frame, faces)[:, :, ::-1])).save(content, "PNG")
    try:
        write_atomic(path, content.getvalue())
    except OSError as error:
        raise ImageError(f"{path} cannot be written ({error.strerror or error})") from error


def names_of(paths: Sequence[Path]) -> list[str]:
    """A name without an ending for each picture; pictures of the same name from different folders get a number."""
    taken: set[str] = set()
    names: list[str] = []
    for path in paths:
        name, number = path.stem, 1
        while name in taken:
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name)
        names.append(name)
    return names
