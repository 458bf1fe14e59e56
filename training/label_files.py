"""Training labels with five landmarks: RetinaFace's text form of WIDER FACE, or the same as JSON.

The text form has a line `# path` for each picture, then one line a face: x y w h, then x y flag for each landmark
(−1 where there is none), then a number that is not read. The JSON form is a list of objects with `file` and `faces`,
each with `box_xyxy` and, where known, `landmarks_xy`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.io.untrusted import ANNOTATION_BYTES, decoded, parse_json, path_below, read_file

from .mesh.teacher_labels import TrainingError


@dataclass(frozen=True, eq=False)
class Annotated:
    """One picture: `boxes` (n, 4) corners, `landmarks` (n, 5, 2), and whether each face has them (n,)."""

    path: Path
    boxes: NDArray[np.float64]
    landmarks: NDArray[np.float64]
    has_landmark: NDArray[np.bool_]


def read_labels(file: Path) -> list[Annotated]:
    """The pictures of a label file, their paths relative to its folder. Raises `TrainingError` naming what is wrong."""
    try:
        content = read_file(file, ANNOTATION_BYTES)
        pictures = _json(parse_json(content)) if file.suffix == ".json" else _text(decoded(content))
    except OSError as error:
        raise TrainingError(f"{file} cannot be read ({error.strerror}); give a label file") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise TrainingError(
            f"{file} is not a label file ({str(error)[:80]}); give WIDER FACE labels with landmarks, .txt or .json"
        ) from error
    found = []
    for name, faces in pictures:
        # `path` is beside the file, or in the folder `images` beside it, as the data set is unpacked.
        places = (path_below(folder, name) for folder in (file.parent, file.parent / "images"))
        path = next((place for place in places if os.path.isfile(place)), None)
        if path is None:
            raise TrainingError(f"{file} names the picture {name}, which is not in {file.parent}")
        if not all(len(face) == 14 for face in faces) or not np.isfinite(faces).all():
            raise TrainingError(f"{file}: a face of {name} is not a box and five landmarks, all of them numbers")
        rows = np.array(faces, np.float64).reshape(len(faces), 14)
        kept = np.all(rows[:, 2:4] > rows[:, :2], axis=1)
        points = rows[kept, 4:].reshape(-1, 5, 2)
        found.append(Annotated(path, rows[kept, :4], np.maximum(points, 0.0), np.all(points >= 0.0, axis=(1, 2))))
    if not any(len(picture.boxes) for picture in found):
        raise TrainingError(f"{file} has no face; give WIDER FACE labels with landmarks")
    return found


def _text(text: str) -> list[tuple[str, list[list[float]]]]:
    pictures: list[tuple[str, list[list[float]]]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("#"):
            pictures.append((line[1:].strip(), []))
        elif line.strip():
            values = [float(word) for word in line.split()]
            if len(values) < 4 or not pictures:
                raise ValueError(f"line {number}: {line[:40]!r} is no face of a picture")
            x, y, width, height = values[:4]
            points = [value for i in range(5) for value in values[4 + 3 * i : 6 + 3 * i]] if len(values) >= 18 else []
            pictures[-1][1].append([x, y, x + width, y + height, *(points or [-1.0] * 10)])
    return pictures


def _json(content: Any) -> list[tuple[str, list[list[float]]]]:
    return [
        (
            str(picture["file"]),
            [[*map(float, f["box_xyxy"]), *map(float, f.get("landmarks_xy") or [-1.0] * 10)] for f in picture["faces"]],
        )
        for picture in content
    ]
