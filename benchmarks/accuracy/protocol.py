"""Judges detections by the protocol of an annotated set: verdicts, recall by face size, and landmark errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.ops.postprocess import Faces

from .average_precision import (
    ImageDetections,
    Judged,
    assign,
    average_precision_of,
    judge,
    none_if_nan,
    precision_recall,
    size_of,
)
from .datasets import WIDER, Annotated, Dataset
from .result import Accuracy, Curve, JudgedImage, LandmarkAccuracy, SizeRecall, scores_of, verdicts_of
from .wider_protocol import judge_wider, wider_average_precision, wider_curve

MATCHED_IOU = 0.5
SIZES = (0.0, 10.0, 16.0, 32.0, 64.0, 128.0, float("inf"))
LEAST_FACE_PX = 10.0
CURVE_POINTS = 200
LANDMARK_FAILURE = 0.1
"""A face whose landmark error is above this share of its size is called a failure (as on AFLW and 300-W)."""


@dataclass
class Tally:
    """Running totals of one detector: a few numbers per face or detection, no pictures."""

    judged: dict[str, list[Judged]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    sizes: list[NDArray[np.float64]] = field(default_factory=list)
    found: list[NDArray[np.bool_]] = field(default_factory=list)
    landmark_errors: list[NDArray[np.float64]] = field(default_factory=list)
    landmark_faces: int = 0


@dataclass(frozen=True)
class Protocol:
    """How a set is judged: `scale` for the record, faces from `least_face_px` input pixels count, recall at a score."""

    dataset: Dataset
    score_threshold: float = 0.5
    least_face_px: float = LEAST_FACE_PX

    def add(self, tally: Tally, picture: Annotated, faces: Faces, frame_scale: float) -> None:
        """Judge one picture; `frame_scale` is the number of picture pixels per input pixel."""
        sizes = size_of(picture.faces, frame_scale)
        for setting in self.dataset.settings:
            counted = picture.counted[setting]
            if self.dataset.protocol == WIDER:
                judged = judge_wider(faces.scores, faces.boxes, picture.faces, counted)
            else:
                counted = counted & (sizes >= self.least_face_px)
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

    def accuracy(self, name: str, tally: Tally, reference: Tally | None) -> Accuracy:
        """The figures of one detector over the pictures so far."""
        sizes, found = np.concatenate(tally.sizes), np.concatenate(tally.found)
        counted = sizes >= (0.0 if self.dataset.protocol == WIDER else self.least_face_px)
        return Accuracy(
            artifact=name,
            ap={s: none_if_nan(self.average_precision(judged)) for s, judged in tally.judged.items()},
            faces={s: sum(image.faces for image in judged) for s, judged in tally.judged.items()},
            recall=float(found[counted].mean()) if counted.any() else None,
            recall_by_size=tuple(_recall_by_size(sizes, found)),
            landmarks=_landmarks(tally),
            curves={s: _curve(*self.curve(judged)) for s, judged in tally.judged.items()},
            worst_image=_worst(tally, reference),
            per_image=tuple(_judged_image(tally, index) for index in range(len(tally.names))),
        )

    def _add_landmarks(
        self, tally: Tally, picture: Annotated, landmarks: NDArray[np.float64], partner: NDArray[np.intp]
    ) -> None:
        """Mean distance of the five points / √(width·height) of the annotated box (arXiv 1905.00641, section 4.4)."""
        if landmarks.shape[1:] != picture.landmarks.shape[1:]:
            return  # the detector gives other points than were annotated, or none
        annotated = np.asarray(np.isfinite(picture.landmarks.reshape(-1, 10)).all(axis=1))
        tally.landmark_faces += int(annotated.sum())
        mine = np.flatnonzero((partner >= 0) & annotated[partner] if len(annotated) else np.zeros(len(partner), bool))
        theirs = partner[mine]
        distance = np.linalg.norm(landmarks[mine] - picture.landmarks[theirs], axis=2).mean(axis=1)
        area = np.prod(picture.faces[theirs, 2:] - picture.faces[theirs, :2], axis=1)
        tally.landmark_errors.append(distance / np.sqrt(np.maximum(area, 1e-12)))


def _judged_image(tally: Tally, index: int) -> JudgedImage:
    protocols = {setting: judged[index] for setting, judged in tally.judged.items()}
    return JudgedImage(tally.names[index], scores_of(protocols), verdicts_of(protocols))


def _recall_by_size(sizes: NDArray[np.float64], found: NDArray[np.bool_]) -> Iterator[SizeRecall]:
    for low, high in pairwise(SIZES):
        inside = (sizes >= low) & (sizes < high)
        yield SizeRecall(
            low, None if high == SIZES[-1] else high, faces=int(inside.sum()), found=int(found[inside].sum())
        )


def _landmarks(tally: Tally) -> LandmarkAccuracy | None:
    if not tally.landmark_faces:
        return None
    errors = np.concatenate(tally.landmark_errors)
    some = len(errors) > 0
    return LandmarkAccuracy(
        annotated=tally.landmark_faces,
        found=len(errors),
        nme_mean=float(errors.mean()) if some else None,
        nme_median=float(np.median(errors)) if some else None,
        failures=int((errors > LANDMARK_FAILURE).sum()),
    )


def _curve(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> Curve:
    """At most `CURVE_POINTS` points, spread evenly over recall."""
    if len(recall) > CURVE_POINTS:
        wanted = np.linspace(recall[0], recall[-1], CURVE_POINTS)
        chosen = np.unique(np.searchsorted(recall, wanted).clip(0, len(recall) - 1))
        recall, precision = recall[chosen], precision[chosen]
    return Curve(tuple(recall.round(5).tolist()), tuple(precision.round(5).tolist()))


def _worst(tally: Tally, reference: Tally | None) -> str:
    """The picture where the reference finds most faces more, at the recall's threshold; none if it is nowhere ahead."""
    if reference is None or reference is tally:
        return ""
    lost = [int(a.sum()) - int(b.sum()) for a, b in zip(reference.found, tally.found, strict=True)]
    index = int(np.argmax(lost)) if lost else 0
    return tally.names[index] if lost and lost[index] > 0 else ""
