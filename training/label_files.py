"""Label files: pictures with the boxes of their faces and, where known, five landmarks each.

A text file has a line for each picture, either `# path` or `path` and the number of its faces in a line of its own (the
official form of WIDER FACE), and then one line for each face. The meaning of a face's line follows from how many
numbers it has:

    4, 5    x y width height, and a score that is not read
    10      x y width height and WIDER FACE's six attributes; a face marked as invalid is left out
    14, 15  x y width height, x y of five landmarks, and a score that is not read
    19, 20  x y width height, x y flag of five landmarks, and a score that is not read (RetinaFace's form)

The JSON form is a list of objects with `file` and `faces`, each with `box_xyxy` and, where known, `landmarks_xy`.

A landmark is unknown where a coordinate or its flag is negative, as RetinaFace's labels write a missing one (−1). The
other landmarks of such a face still count.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.io.untrusted import ANNOTATION_BYTES, decoded, parse_json, read_file

from .errors import TrainingError

LANDMARKS = 5
BOX, WIDER, POINTS, FLAGGED = (4, 5), (10,), (14, 15), (19, 20)
"""How many numbers a face's line has."""
INVALID = 7
"""Where WIDER FACE's attribute `invalid` is."""
PATHS_SHOWN = 40

_Faces = list[tuple[list[float], list[float]]]
"""Corners and the coordinates of five landmarks; NaN where one is unknown."""


@dataclass(frozen=True, eq=False)
class Annotated:
    """One picture: `boxes` (n, 4) corners, `landmarks` (n, 5, 2) in pixels, and which of these are known (n, 5).

    Unknown landmarks are 0. `left_out` counts the faces without area and those marked as invalid.
    """

    path: Path
    boxes: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    visible: NDArray[np.bool_]
    left_out: int = 0

    @property
    def has_landmark(self) -> NDArray[np.bool_]:
        """Whether any landmark of a face is known (n,)."""
        return np.asarray(self.visible.any(axis=1))


@dataclass(frozen=True)
class _Listed:
    """One picture as the file names it, and its faces; those that it marks as invalid are only counted."""

    name: str
    faces: _Faces
    invalid: int = 0


def read_labels(file: Path, folder: Path | None = None) -> list[Annotated]:
    """The pictures of a label file. Their paths are relative to `folder`, by default to the file's own folder.

    Raises `TrainingError` that names what is wrong, and the line of a text file.
    """
    try:
        content = read_file(file, ANNOTATION_BYTES)
        listed = _json(parse_json(content)) if file.suffix.lower() == ".json" else list(_text(decoded(content)))
    except OSError as error:
        raise TrainingError(f"{file} cannot be read ({error.strerror}); give a label file") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise TrainingError(
            f"{file} is not a label file ({str(error)[:160]}); give labels in the form of WIDER FACE "
            "or RetinaFace (.txt), or .json"
        ) from error
    found = [_annotated(picture, file, folder or file.parent) for picture in listed]
    if not any(len(picture.boxes) for picture in found):
        raise TrainingError(f"{file} has no face; give a label file with faces")
    return found


def summary(pictures: Sequence[Annotated]) -> str:
    """What a label file holds, for a message: how many pictures, faces and landmarks."""
    faces = sum(len(picture.boxes) for picture in pictures)
    marked = sum(int(picture.has_landmark.sum()) for picture in pictures)
    points = sum(int(picture.visible.sum()) for picture in pictures)
    left_out = sum(picture.left_out for picture in pictures)
    text = f"pictures: {len(pictures):,}, faces: {faces:,}, with landmarks: {marked:,} ({points:,} points)"
    return f"{text}, left out: {left_out:,} (without area or marked as invalid)" if left_out else text


def _annotated(picture: _Listed, file: Path, folder: Path) -> Annotated:
    # The pictures are in the folder itself, or in the folder `images` there, as the data set is unpacked.
    path = next((p for p in (folder / picture.name, folder / "images" / picture.name) if os.path.isfile(p)), None)
    if path is None:
        raise TrainingError(f"{file} names the picture {picture.name[:PATHS_SHOWN]}, which is not in {folder}")
    boxes = np.array([box for box, _ in picture.faces], np.float64).reshape(-1, 4)
    points = np.array([points for _, points in picture.faces], np.float64).reshape(-1, LANDMARKS, 2)
    kept = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    boxes, points = boxes[kept], points[kept]
    visible = np.all(points >= 0.0, axis=2)  # not where it is NaN
    points = np.where(visible[..., None], points, 0.0)
    return Annotated(path, boxes, points, visible, picture.invalid + int((~kept).sum()))


def _text(text: str) -> Iterator[_Listed]:
    """The pictures of a text file, in either form. Raises `ValueError` that names the line."""
    # Not `splitlines`, which breaks lines where editors do not, so that numbers would be wrong.
    numbered = enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1)
    lines = [(number, line.strip()) for number, line in numbered if line.strip()]
    position = 0
    while position < len(lines):
        number, line = lines[position]
        if line.startswith("#"):
            name, rows = line[1:], _until_next_picture(lines, position + 1)
            position += 1 + len(rows)
        elif _numbers(line) is not None:
            raise ValueError(
                f"line {number}: {line[:PATHS_SHOWN]!r} is a face without a picture: a line with a path must come first"
            )
        else:
            name, rows = line, _counted(lines, position)
            # A picture without faces has one line of zeros all the same.
            position += 2 + len(rows)
            if not rows and position < len(lines) and not any(_numbers(lines[position][1]) or [1.0]):
                position += 1
        if not (name := name.strip().replace("\\", "/")):
            raise ValueError(f"line {number}: there is no path after #")
        faces = [_face(*row) for row in rows]
        valid = [face for face in faces if face is not None]
        yield _Listed(name, valid, len(faces) - len(valid))


def _until_next_picture(lines: list[tuple[int, str]], start: int) -> list[tuple[int, str]]:
    end = next((i for i in range(start, len(lines)) if lines[i][1].startswith("#")), len(lines))
    return lines[start:end]


def _counted(lines: list[tuple[int, str]], position: int) -> list[tuple[int, str]]:
    """The faces of the picture in line `position`, whose number is in the next line."""
    number, line = lines[position]
    text = lines[position + 1][1] if position + 1 < len(lines) else ""
    if not (text.isascii() and text.isdigit() and len(text) < 9):
        raise ValueError(
            f"line {number}: {line[:PATHS_SHOWN]!r} is neither a face nor a path; a path begins with # or has the "
            "number of faces in the next line"
        )
    rows = lines[position + 2 : position + 2 + int(text)]
    if len(rows) < int(text):
        raise ValueError(f"line {lines[position + 1][0]}: {text} faces, but the file ends after {len(rows)}")
    return rows


def _numbers(line: str) -> list[float] | None:
    """The numbers of a line, with spaces or commas between them; None when it holds anything else."""
    try:
        return [float(word) for word in re.split(r"[\s,]+", line.strip(", "))]
    except ValueError:
        return None


def _face(number: int, line: str) -> tuple[list[float], list[float]] | None:
    """One face's line; None for a face that is marked as invalid. Raises `ValueError` that names the line."""
    values = _numbers(line)
    if values is None or not np.isfinite(values).all():
        raise ValueError(f"line {number}: {line[:PATHS_SHOWN]!r} is not a face: it holds more than numbers")
    if len(values) in WIDER and values[INVALID] == 1:
        return None
    points = [np.nan] * 2 * LANDMARKS
    if len(values) in POINTS:
        points = values[4:14]
    elif len(values) in FLAGGED:
        marks = np.array(values[4:19]).reshape(LANDMARKS, 3)
        points = np.where(marks[:, 2:] < 0.0, np.nan, marks[:, :2]).ravel().tolist()
    elif len(values) not in (*BOX, *WIDER):
        known = ", ".join(map(str, (*BOX, *WIDER, *POINTS, *FLAGGED)))
        raise ValueError(f"line {number}: {len(values)} numbers; a face has one of {known}")
    x, y, width, height = values[:4]
    return [x, y, x + width, y + height], points


def _json(content: Any) -> list[_Listed]:
    return [
        _Listed(str(picture["file"]).replace("\\", "/"), [_json_face(face) for face in picture["faces"]])
        for picture in content
    ]


def _json_face(face: Any) -> tuple[list[float], list[float]]:
    box, points = list(map(float, face["box_xyxy"])), face.get("landmarks_xy")
    marks = [np.nan] * 2 * LANDMARKS if points is None else list(map(float, points))
    if len(box) != 4 or len(marks) != 2 * LANDMARKS or not np.isfinite(box if points is None else [*box, *marks]).all():
        raise ValueError(f"{face!r:.80} is not a box and five landmarks, all of them numbers")
    return box, marks
