"""Drift of detections: the faces of an artifact against those of its reference.

Sizes are the shorter side of a box in pixels of the network's input, so that they mean the same for pictures of any
resolution. Landmark shifts are shares of √(width·height) of the reference's box, as in RetinaFace (arXiv 1905.00641,
section 4.4), where landmark errors are normalised that way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.ops.iou import iou
from retinaface_edge.runtime.ops.postprocess import Faces

from ..accuracy.average_precision import (
    ImageDetections,
    Judged,
    assign,
    average_precision_of,
    judge,
    none_if_nan,
    size_of,
)
from ..accuracy.result import scores_of, verdicts_of
from .result import DetectionDrift, DriftedImage, LostFace, ScoreCounts, SizeCounts

MATCHED_IOU = 0.5
SIZES = (0.0, 16.0, 32.0, 64.0, 128.0, float("inf"))
SCORES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
TRUTHS = (0.02, 0.5)
"""Reference faces from these scores on are the truth of an AP, each in turn."""


@dataclass(frozen=True)
class ImageComparison:
    """One picture at the operating threshold. `matched` has one row per matched face."""

    image: str
    matched: NDArray[np.float64]
    """(n, 5): reference's score, size, IoU, score shift (artifact − reference), landmark shift."""
    missed: tuple[LostFace, ...]
    invented: tuple[LostFace, ...]
    judged: tuple[Judged, ...]
    """The artifact's detections with the reference's as truth, one for each of `TRUTHS`."""


def compare_faces(
    image: str, reference: Faces, artifact: Faces, frame_scale: float, threshold: float
) -> ImageComparison:
    """Compare the faces of one picture; both sides hold detections from a score of 0.02 on."""
    r, a = _from(reference, threshold), _from(artifact, threshold)
    partner = assign(a.scores, a.boxes, r.boxes, MATCHED_IOU)
    mine = np.flatnonzero(partner >= 0)
    theirs = partner[mine]
    overlaps = np.array([iou(a.boxes[i, None], r.boxes[j, None])[0, 0] for i, j in zip(mine, theirs, strict=True)])
    shift = _landmark_shift(r.landmarks[theirs], a.landmarks[mine], r.boxes[theirs])
    sizes = size_of(r.boxes, frame_scale)
    matched = [r.scores[theirs], sizes[theirs], overlaps, a.scores[mine] - r.scores[theirs], shift]
    judged = []
    for truth in TRUTHS:
        faces = _from(reference, truth).boxes
        judged.append(judge(ImageDetections(artifact.scores, artifact.boxes, faces, np.ones(len(faces), bool))))
    return ImageComparison(
        image,
        np.stack(matched, axis=1),
        _lost(image, r, np.setdiff1d(np.arange(len(r)), theirs), artifact, frame_scale),
        _lost(image, a, np.flatnonzero(partner < 0), reference, frame_scale),
        tuple(judged),
    )


class DetectionTotals:
    """Adds up `ImageComparison`s. It keeps a few numbers per face, never pixels or tensors."""

    def __init__(self) -> None:
        self.images: list[ImageComparison] = []

    def add(self, drift: ImageComparison) -> None:
        """Count in one image."""
        self.images.append(drift)

    def summary(self) -> DetectionDrift:
        """All figures over the images so far."""
        images = self.images
        matched = np.concatenate([image.matched for image in images]) if images else np.zeros((0, 5))
        missed = [face for image in images for face in image.missed]
        invented = [face for image in images for face in image.invented]
        reference_score, size, overlap, score, landmark = matched.T
        sizes = [size, [face.size_px for face in missed], [face.size_px for face in invented]]
        scores = [reference_score, [face.score for face in missed], [face.score for face in invented]]
        return DetectionDrift(
            ap={
                f"{truth:g}": none_if_nan(average_precision_of([image.judged[index] for image in images]))
                for index, truth in enumerate(TRUTHS)
            },
            matched=len(matched),
            missed=len(missed),
            missed_below_threshold=sum(face.below_threshold for face in missed),
            invented=len(invented),
            invented_below_threshold=sum(face.below_threshold for face in invented),
            iou_mean=_of(np.mean, overlap),
            iou_p05=_of(lambda x: np.percentile(x, 5), overlap),
            iou_least=_of(np.min, overlap),
            score_shift_mean=_of(np.mean, score),
            score_shift_absolute_mean=_of(np.mean, np.abs(score)),
            score_shift_absolute_largest=_of(np.max, np.abs(score)),
            landmark_shift_mean_share=_of(np.mean, landmark),
            landmark_shift_p95_share=_of(lambda x: np.percentile(x, 95), landmark),
            by_size=tuple(
                SizeCounts(low, None if high == SIZES[-1] else high, *_counts(low, high, SIZES[-1], sizes))
                for low, high in pairwise(SIZES)
            ),
            by_score=tuple(
                ScoreCounts(low, high, *_counts(low, high, SCORES[-1], scores)) for low, high in pairwise(SCORES)
            ),
        )

    def per_image(self) -> tuple[DriftedImage, ...]:
        """The images so far, each with what makes up its average precision."""
        return tuple(_drifted(image) for image in self.images)

    def missed(self) -> tuple[LostFace, ...]:
        """The faces that only the reference has."""
        return tuple(face for image in self.images for face in image.missed)

    def invented(self) -> tuple[LostFace, ...]:
        """The faces that only the artifact has."""
        return tuple(face for image in self.images for face in image.invented)


def _drifted(image: ImageComparison) -> DriftedImage:
    protocols = {f"ap_{truth:g}": judged for truth, judged in zip(TRUTHS, image.judged, strict=True)}
    return DriftedImage(
        image=image.image,
        scores=scores_of(protocols),
        protocols=verdicts_of(protocols),
        matched=len(image.matched),
        iou_mean=_of(np.mean, image.matched[:, 2]),
        landmark_shift_mean_share=_of(np.mean, image.matched[:, 4]),
    )


def _landmark_shift(
    expected: NDArray[np.float64], found: NDArray[np.float64], boxes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean distance of each face's points (n, points, 2) as a share of √(box area); NaN for detectors without any."""
    if not expected.shape[1]:
        return np.full(len(expected), np.nan)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return np.asarray(np.linalg.norm(found - expected, axis=2).mean(axis=1) / np.sqrt(area))


def _from(faces: Faces, threshold: float) -> Faces:
    kept = faces.scores >= threshold
    return Faces(faces.scores[kept], faces.boxes[kept], faces.landmarks[kept])


def _lost(
    image: str, faces: Faces, indices: NDArray[np.intp], other: Faces, frame_scale: float
) -> tuple[LostFace, ...]:
    sizes = size_of(faces.boxes, frame_scale)
    seen = [bool((iou(faces.boxes[i, None], other.boxes) >= MATCHED_IOU).any()) for i in indices]
    return tuple(
        LostFace(image, float(faces.scores[i]), float(sizes[i]), tuple(faces.boxes[i].tolist()), below)
        for i, below in zip(indices, seen, strict=True)
    )


def _counts(
    low: float, high: float, last: float, sides: Sequence[Sequence[float] | NDArray[np.float64]]
) -> tuple[int, ...]:
    """How many values of each side are in [low, high); the band that ends with `last` takes it in."""
    arrays = [np.asarray(values, np.float64) for values in sides]
    return tuple(int(np.sum((a >= low) & ((a < high) if high != last else (a <= high)))) for a in arrays)


def _of(statistic: Callable[[NDArray[np.float64]], Any], values: NDArray[np.float64]) -> float | None:
    """A statistic of the values that there are; None where there is none."""
    known = values[~np.isnan(values)]
    return float(statistic(known)) if len(known) else None
