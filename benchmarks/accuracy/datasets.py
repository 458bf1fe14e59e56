"""Readers of annotated sets: plain lists of boxes, and COCO files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.io.untrusted import ANNOTATION_BYTES, path_below, read_json

from ..errors import MeasurementError

AP50, WIDER = "AP at IoU 0.5", "WIDER FACE"
FACES = "faces"


@dataclass(frozen=True)
class Annotated:
    """One picture: `faces` (m, 4) as x1, y1, x2, y2 in its pixels.

    `counted` has, for each setting, which faces count (m,). `landmarks` (m, 5, 2) are NaN where a face has none.
    """

    name: str
    path: Path
    faces: NDArray[np.float64]
    counted: Mapping[str, NDArray[np.bool_]]
    landmarks: NDArray[np.float64]


@dataclass(frozen=True)
class Dataset:
    """A set, its protocol (`AP50` or `WIDER`), and a note on what of it is there, for the result."""

    name: str
    protocol: str
    pictures: tuple[Annotated, ...]
    note: str = ""

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of what is averaged: easy, medium, hard, or all faces."""
        return tuple(self.pictures[0].counted)


def read_boxes(path: Path) -> Dataset:
    """A JSON list of `{"file", "boxes_xyxy"}` (FDDB in plain form), or of `{"file", "faces": [{"box_xyxy",
    "landmarks_xy"}]}`, or COCO's object with `images` and `annotations`. Files are relative to the JSON's folder.

    Pictures that are not there are left out, and the note says how many. Raises `MeasurementError`.
    """
    try:
        content = read_json(path, ANNOTATION_BYTES)
    except (OSError, ValueError, RecursionError) as error:
        raise MeasurementError(f"{path} is not readable JSON ({error})") from error
    try:
        if isinstance(content, dict):
            pictures = list(_coco(content, path.parent))
        elif isinstance(content, list):
            pictures = [_listed(entry, path.parent) for entry in content]
        else:
            raise TypeError("it is neither a list nor an object")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise MeasurementError(
            f"{path} has no annotations in a known form ({error!r}); give a list of "
            '{"file", "boxes_xyxy"} or a COCO file with images and annotations'
        ) from error
    return present(path.stem if path.stem != "boxes" else path.absolute().parent.name, AP50, pictures, str(path))


def present(name: str, protocol: str, pictures: Iterable[Annotated], source: str) -> Dataset:
    """The set of those pictures that are on disk. Raises `MeasurementError` when there is none."""
    everything = list(pictures)
    there = tuple(picture for picture in everything if os.path.isfile(picture.path))  # False, too, for impossible names
    if not there:
        first = f"; the first, {everything[0].path}, is not there" if everything else ""
        raise MeasurementError(f"none of the {len(everything)} pictures that {source} annotates can be found{first}")
    note = "" if len(there) == len(everything) else f"{len(there)} of {len(everything)} pictures are there"
    return Dataset(name, protocol, there, note)


def _listed(entry: Mapping[str, Any], folder: Path) -> Annotated:
    faces = entry.get("faces")
    if faces is None:
        boxes, points = entry["boxes_xyxy"], []
    else:
        boxes, points = [face["box_xyxy"] for face in faces], [face.get("landmarks_xy") for face in faces]
    return _annotated(str(entry["file"]), folder, boxes, [True] * len(boxes), points)


def _coco(content: Mapping[str, Any], folder: Path) -> Iterable[Annotated]:
    """Boxes are x, y, width, height; crowds and ignored ones do not count; key points, if any, are x, y, visibility."""
    by_image: dict[Any, list[Mapping[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    for image in content["images"]:
        found = by_image[image["id"]]
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (annotation["bbox"] for annotation in found)]
        counted = [not (annotation.get("iscrowd") or annotation.get("ignore")) for annotation in found]
        points = [_keypoints(annotation.get("keypoints")) for annotation in found]
        yield _annotated(str(image["file_name"]), folder, boxes, counted, points)


def _keypoints(values: list[float] | None) -> list[float] | None:
    if values is None or len(values) != 15 or not all(values[2::3]):
        return None
    return [value for index, value in enumerate(values) if index % 3 != 2]


def _annotated(
    name: str, folder: Path, boxes: list[list[float]], counted: list[bool], points: list[list[float] | None]
) -> Annotated:
    landmarks = np.full((len(boxes), 5, 2), np.nan)
    for index, values in enumerate(points):
        if values:
            landmarks[index] = np.asarray(values, np.float64).reshape(5, 2)
    array = np.asarray(boxes, np.float64).reshape(-1, 4)
    if not np.isfinite(array).all():
        raise ValueError(f"a box of {name} is not finite")
    return Annotated(name, path_below(folder, name), array, {FACES: np.array(counted, bool)}, landmarks)
