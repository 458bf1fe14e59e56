"""Accuracy: every artifact of a bundle, or any detector's predictions, on an annotated set at a stated scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.ops.postprocess import Faces
from retinaface_edge.runtime.spec import Spec

from ..drift.detection_metrics import none_if_nan, size_of
from ..drift.run import REFERENCE, Progress
from ..inference.measurement import Measurement, Plan, Result, Unreadable, set_digest
from ..inference.network_under_test import MeasurementError, Subject
from ..inference.result_cache import ResultCache
from ..inference.scales import checked_scale
from ..results import judged_json, result_header
from .average_precision import ImageDetections, Judged, assign, average_precision_of, judge, precision_recall
from .datasets import WIDER, Annotated, Dataset
from .wider_files import read_ground_truth, read_predictions, text_file
from .wider_protocol import judge_wider, wider_average_precision, wider_curve

MATCHED_IOU = 0.5
SIZES = (0.0, 10.0, 16.0, 32.0, 64.0, 128.0, float("inf"))
LEAST_FACE = 10.0
CURVE_POINTS = 200
LANDMARK_FAILURE = 0.1
"""A face whose landmark error is above this share of its size is called a failure (as on AFLW and 300-W)."""


@dataclass
class Tally:
    """What is known of one detector so far: a few numbers a face or detection, no pictures."""

    judged: dict[str, list[Judged]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    sizes: list[NDArray[np.float64]] = field(default_factory=list)
    found: list[NDArray[np.bool_]] = field(default_factory=list)
    landmark_errors: list[NDArray[np.float64]] = field(default_factory=list)
    landmark_faces: int = 0


@dataclass(frozen=True)
class Protocol:
    """How a set is judged: `scale` for the record, faces from `least_face` input pixels count, recall at a score."""

    dataset: Dataset
    score_threshold: float = 0.5
    least_face: float = LEAST_FACE

    def add(self, tally: Tally, picture: Annotated, faces: Faces, frame_scale: float) -> None:
        """Judge one picture; `frame_scale` is picture pixels an input pixel."""
        sizes = size_of(picture.faces, frame_scale)
        for setting in self.dataset.settings:
            counted = picture.counted[setting]
            if self.dataset.protocol == WIDER:
                judged = judge_wider(faces.scores, faces.boxes, picture.faces, counted)
            else:
                counted = counted & (sizes >= self.least_face)
                judged = judge(ImageDetections(faces.scores, faces.boxes, picture.faces, counted), MATCHED_IOU)
            tally.judged.setdefault(setting, []).append(judged)
        tally.names.append(picture.name)
        kept = faces.scores >= self.score_threshold
        partner = assign(faces.scores[kept], faces.boxes[kept], picture.faces, MATCHED_IOU)
        found = np.isin(np.arange(len(picture.faces)), partner)
        counted = picture.counted[self.dataset.settings[-1]]
        tally.sizes.append(sizes[counted])
        tally.found.append(found[counted])
        self._add_landmarks(tally, picture, faces.landmarks[kept], partner)

    def average_precision(self, judged: Sequence[Judged], weights: NDArray[np.float64] | None = None) -> float:
        """AP by the set's protocol, in 0…1; NaN when no face counts."""
        rule = wider_average_precision if self.dataset.protocol == WIDER else average_precision_of
        return rule(judged, weights)

    def curve(self, judged: Sequence[Judged]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Recall and precision by the set's protocol."""
        return wider_curve(judged) if self.dataset.protocol == WIDER else precision_recall(judged)[:2]

    def _add_landmarks(
        self, tally: Tally, picture: Annotated, landmarks: NDArray[np.float64], partner: NDArray[np.intp]
    ) -> None:
        """Mean distance of the five points / √(width·height) of the annotated box (arXiv 1905.00641, section 4.4)."""
        annotated = np.asarray(np.isfinite(picture.landmarks.reshape(-1, 10)).all(axis=1))
        tally.landmark_faces += int(annotated.sum())
        mine = np.flatnonzero((partner >= 0) & annotated[partner] if len(annotated) else np.zeros(len(partner), bool))
        theirs = partner[mine]
        distance = np.linalg.norm(landmarks[mine] - picture.landmarks[theirs], axis=2).mean(axis=1)
        area = np.prod(picture.faces[theirs, 2:] - picture.faces[theirs, :2], axis=1)
        tally.landmark_errors.append(distance / np.sqrt(np.maximum(area, 1e-12)))


def evaluate(
    subjects: Sequence[Subject],
    dataset: Dataset,
    cache: ResultCache,
    *,
    scale: str,
    score_threshold: float = 0.5,
    least_face: float = LEAST_FACE,
    workers: int = 1,
    dask: str | None = None,
    progress: Progress = iter,
    each: Callable[[str, str, Faces], None] | None = None,
) -> dict[str, Any]:
    """Evaluate `subjects` on a set at a scale of `views.SCALES`. Gives the result as plain JSON values.

    `each(artifact, picture, faces)` is called for every picture, for instance to write prediction files. Raises
    `MeasurementError` when no picture can be read, or the scale does not fit.
    """
    spec = subjects[0].spec
    protocol = Protocol(dataset, score_threshold, least_face)
    pictures = {picture.name: picture for picture in dataset.pictures}
    plan = Plan(tuple(subjects), scale=checked_scale(spec, scale))
    measurement = Measurement(plan, {n: p.path for n, p in pictures.items()}, cache, workers, dask)
    tallies = [Tally() for _ in subjects]
    skipped: list[Unreadable] = []
    for result in progress(measurement):
        if isinstance(result, Unreadable):
            skipped.append(result)
            continue
        for subject, tally, faces in zip(subjects, tallies, result.faces, strict=True):
            protocol.add(tally, pictures[result.name], faces, frame_scale(spec, result))
            if each is not None:
                each(subject.name, result.name, faces)
    if len(skipped) == len(measurement):
        raise MeasurementError(f"none of {len(measurement)} pictures can be read; the first: {skipped[0].reason}")
    digests = {n: d for n, d in measurement.image_digests.items() if n not in {s.name for s in skipped}}
    named = dict(zip([subject.name for subject in subjects], tallies, strict=True))
    return {
        **result_header("eval", subjects),
        **_set_json(protocol, scale, f"{spec.width}x{spec.height}"),
        "images": {"count": len(digests), "digest": set_digest(digests), "skipped": [asdict(s) for s in skipped]},
        "results": list(_results(protocol, named)),
    }


def evaluate_files(widerface: Path, predictions: Path) -> dict[str, Any]:
    """The same result for the text files in `predictions` that some detector wrote, at a scale only it knows.

    Judged are the pictures that are in `widerface`; where no picture is there, those that have predictions. Sizes are
    in pixels of the picture. Raises `MeasurementError`.
    """
    annotated = read_ground_truth(widerface)
    there = [picture for picture in annotated if picture.path.is_file()]
    judged = there or [picture for picture in annotated if (predictions / text_file(picture.name)).is_file()]
    if not judged:
        raise MeasurementError(f"{predictions} holds no predictions; they lie in EVENT/NAME.txt, one file a picture")
    found, absent = read_predictions(predictions, [picture.name for picture in judged])
    note = "" if len(judged) == len(annotated) else f"{len(judged)} of {len(annotated)} pictures are there"
    protocol = Protocol(Dataset("WIDER FACE val", WIDER, tuple(judged), note))
    tally = Tally()
    for picture in judged:
        protocol.add(tally, picture, found[picture.name], 1.0)
    name = predictions.name
    return {
        **result_header("eval", []),
        **_set_json(protocol, "as predicted", "unknown"),
        "reference": name,
        "images": {"count": len(judged), "digest": set_digest(dict.fromkeys(tally.names, "")), "skipped": []},
        "results": list(_results(protocol, {name: tally})),
        "predictions": f"{len(absent)} of {len(judged)} pictures have no file, and count as having no detections",
    }


def frame_scale(spec: Spec, result: Result) -> float:
    """Picture pixels an input pixel, when the whole picture is shown."""
    return max(result.size[0] / spec.width, result.size[1] / spec.height)


def _set_json(protocol: Protocol, scale: str, size: str) -> dict[str, Any]:
    dataset = protocol.dataset
    return {
        "reference": REFERENCE,
        "set": {
            "name": dataset.name,
            "protocol": dataset.protocol,
            "note": dataset.note,
            "least_face": None if dataset.protocol == WIDER else protocol.least_face,
        },
        "scale": scale,
        "input": size,
        "score_threshold": protocol.score_threshold,
    }


def _results(protocol: Protocol, tallies: Mapping[str, Tally]) -> Iterator[dict[str, Any]]:
    first = tallies.get(REFERENCE)
    for name, tally in tallies.items():
        sizes, found = np.concatenate(tally.sizes), np.concatenate(tally.found)
        counted = sizes >= (0.0 if protocol.dataset.protocol == WIDER else protocol.least_face)
        yield {
            "artifact": name,
            "ap": {s: none_if_nan(protocol.average_precision(j)) for s, j in tally.judged.items()},
            "faces": {s: sum(image.faces for image in j) for s, j in tally.judged.items()},
            "recall": float(found[counted].mean()) if counted.any() else None,
            "recall_by_size": list(_recall_by_size(sizes, found)),
            "landmarks": _landmarks(tally),
            "curves": {s: _curve(*protocol.curve(j)) for s, j in tally.judged.items()},
            "worst_image": _worst(tally, first),
            "per_image": [
                {"image": image, **judged_json({s: j[index] for s, j in tally.judged.items()})}
                for index, image in enumerate(tally.names)
            ],
        }


def _recall_by_size(sizes: NDArray[np.float64], found: NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
    for low, high in pairwise(SIZES):
        inside = (sizes >= low) & (sizes < high)
        yield {
            "from": low,
            "to": None if high == SIZES[-1] else high,
            "faces": int(inside.sum()),
            "found": int(found[inside].sum()),
        }


def _landmarks(tally: Tally) -> dict[str, Any] | None:
    if not tally.landmark_faces:
        return None
    errors = np.concatenate(tally.landmark_errors)
    some = len(errors) > 0
    return {
        "annotated": tally.landmark_faces,
        "found": len(errors),
        "nme_mean": float(errors.mean()) if some else None,
        "nme_median": float(np.median(errors)) if some else None,
        "failures": int((errors > LANDMARK_FAILURE).sum()),
    }


def _curve(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> dict[str, list[float]]:
    """At most `CURVE_POINTS` points, spread evenly over recall."""
    if len(recall) > CURVE_POINTS:
        wanted = np.linspace(recall[0], recall[-1], CURVE_POINTS)
        chosen = np.unique(np.searchsorted(recall, wanted).clip(0, len(recall) - 1))
        recall, precision = recall[chosen], precision[chosen]
    return {"recall": recall.round(5).tolist(), "precision": precision.round(5).tolist()}


def _worst(tally: Tally, first: Tally | None) -> str:
    """The picture where the reference finds most faces more, at the recall's threshold; none if it is nowhere ahead."""
    if first is None or first is tally:
        return ""
    lost = [int(a.sum()) - int(b.sum()) for a, b in zip(first.found, tally.found, strict=True)]
    index = int(np.argmax(lost)) if lost else 0
    return tally.names[index] if lost and lost[index] > 0 else ""
