"""The files of WIDER FACE: the official ground truth (`.mat`) and the per-event text files of predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.io.atomic import write_atomic
from retinaface_edge.runtime.io.untrusted import ANNOTATION_BYTES, open_file, read_text
from retinaface_edge.runtime.ops.postprocess import Faces

from ..errors import MeasurementError
from .datasets import WIDER, Annotated, Dataset, present
from .wider_protocol import SETTINGS

IMAGES = Path("WIDER_val") / "images"
GROUND_TRUTH = Path("ground_truth")
SUFFIX = ".jpg"
LANDMARKS_UNKNOWN = float("nan")


def read_wider(folder: Path) -> Dataset:
    """The validation set in `folder`: `WIDER_val/images/EVENT/NAME.jpg` and `ground_truth/wider_*_val.mat`.

    Pictures that are not there are left out, and the note says how many. Raises `MeasurementError` when the ground
    truth cannot be read, or when no picture is there.
    """
    return present("WIDER FACE val", WIDER, read_ground_truth(folder), f"{folder / GROUND_TRUTH}")


def read_ground_truth(folder: Path) -> list[Annotated]:
    """All annotated pictures, whether they are on disk or not; `name` is `EVENT/NAME.jpg`."""
    everything = _load(folder / GROUND_TRUTH / "wider_face_val.mat")
    listed = {setting: _load(folder / GROUND_TRUTH / f"wider_{setting}_val.mat") for setting in SETTINGS}
    try:
        return list(_pictures(everything, listed, folder))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise MeasurementError(
            f"{folder / GROUND_TRUTH} has no WIDER FACE ground truth in the official form ({error!r})"
        ) from error


def _pictures(
    everything: Mapping[str, Any], listed: Mapping[str, Mapping[str, Any]], folder: Path
) -> Iterator[Annotated]:
    for event, (event_name,) in enumerate(everything["event_list"]):
        names, boxes = everything["file_list"][event][0], everything["face_bbx_list"][event][0]
        for index, (name,) in enumerate(names):
            x, y, width, height = np.asarray(boxes[index][0], np.float64).reshape(-1, 4).T
            faces = np.stack([x, y, x + width, y + height], axis=1)
            counted = {}
            for setting in SETTINGS:
                counted[setting] = np.zeros(len(faces), bool)
                numbers = np.asarray(listed[setting]["gt_list"][event][0][index][0], np.int64).ravel()
                counted[setting][numbers - 1] = True
            # Whole names with the suffix added: taking it away letter by letter would eat names that end in j, p or g.
            file = f"{event_name[0]}/{name[0]}{SUFFIX}"
            yield Annotated(file, folder / IMAGES / file, faces, counted, np.full((len(faces), 5, 2), np.nan))


def text_file(name: str) -> Path:
    """Where the predictions for the picture `EVENT/NAME.jpg` lie in their folder."""
    return Path(name.removesuffix(SUFFIX) + ".txt")


def write_predictions(folder: Path, name: str, faces: Faces) -> None:
    """Write one picture's file, `EVENT/NAME.txt`: the name, the number of faces, and `x y width height score` rows."""
    path = folder / text_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{x1:.3f} {y1:.3f} {x2 - x1:.3f} {y2 - y1:.3f} {s:.6f}" for (x1, y1, x2, y2), s in _rows(faces)]
    write_atomic(path, "\n".join([name.removesuffix(SUFFIX), str(len(rows)), *rows]) + "\n")


def read_predictions(folder: Path, names: Iterable[str]) -> tuple[dict[str, Faces], list[str]]:
    """The predictions for pictures `names` (`EVENT/NAME.jpg`) of any detector, and the names that have no file.

    A picture without a file has no detections. Raises `MeasurementError` when a file is damaged, or none is there.
    """
    found, absent = {}, []
    for name in names:
        path = folder / text_file(name)
        if path.is_file():
            found[name] = _read(path)
        else:
            absent.append(name)
            found[name] = Faces(np.zeros(0), np.zeros((0, 4)), np.zeros((0, 5, 2)))
    if len(absent) == len(found):
        raise MeasurementError(
            f"{folder} holds no predictions; expected are files EVENT/NAME.txt, one file per picture"
        )
    return found, absent


def _read(path: Path) -> Faces:
    try:
        lines = read_text(path, errors="replace").splitlines()
        count = int(lines[1])
        values: NDArray[np.float64] = np.array([line.split() for line in lines[2 : 2 + count]], np.float64)
        values = values.reshape(count, 5)
        if not np.isfinite(values).all() or any(line.strip() for line in lines[2 + count :]):
            raise ValueError("a value is not finite, or rows are left over")
    except (OSError, IndexError, ValueError) as error:
        raise MeasurementError(
            f"{path} is not a WIDER FACE prediction file ({error}); it has the picture's name, the number of faces, "
            "and as many rows of x y width height score"
        ) from error
    x, y, width, height, scores = values.T
    boxes = np.stack([x, y, x + width, y + height], axis=1)
    return Faces(scores, boxes, np.full((count, 5, 2), LANDMARKS_UNKNOWN))


def _rows(faces: Faces) -> Iterator[tuple[list[float], float]]:
    return zip(faces.boxes.tolist(), faces.scores.tolist(), strict=True)


def _load(path: Path) -> Mapping[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise MeasurementError("reading .mat files needs SciPy; run: pip install 'retinaface-edge[eval]'") from error
    try:
        with open_file(path, ANNOTATION_BYTES) as file:
            content: Mapping[str, Any] = loadmat(file)
    except (OSError, ValueError, NotImplementedError) as error:
        raise MeasurementError(
            f"{path} cannot be read as a .mat file ({error}); get the official ground truth"
        ) from error
    return content
