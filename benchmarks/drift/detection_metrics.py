"""The detection floor: the faces of an artifact against those of its reference.

Sizes are the shorter side of a box in pixels of the network's input, so that they mean the same for pictures of any
resolution. Landmark shifts are shares of √(width·height) of the reference's box, as in RetinaFace (arXiv 1905.00641,
section 4.4), where landmark errors are normalised that way.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.ops.iou import iou
from retinaface_edge.runtime.ops.postprocess import Faces

from ..accuracy.average_precision import ImageDetections, Judged, assign, average_precision_of, judge

MATCHED_IOU = 0.5
SIZES = (0.0, 16.0, 32.0, 64.0, 128.0, float("inf"))
SCORES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
TRUTHS = (0.02, 0.5)
"""Reference faces from these scores on are the truth of an AP, each in turn."""


@dataclass(frozen=True)
class Lost:
    """A face that only one side has: its score there, its size in input pixels, and its box in the picture."""

    image: str
    score: float
    size: float
    box: tuple[float, float, float, float]
    faint: bool
    """The other side has it too, below the threshold."""


@dataclass(frozen=True)
class ImageDrift:
    """One picture at the operating threshold. Arrays have a row a matched face: (score of reference, size, …)."""

    image: str
    matched: NDArray[np.float64]
    """(n, 5): reference's score, size, IoU, score shift (artifact − reference), landmark shift."""
    missed: tuple[Lost, ...]
    invented: tuple[Lost, ...]
    judged: tuple[Judged, ...]
    """The artifact's detections with the reference's as truth, one for each of `TRUTHS`."""


def size_of(boxes: NDArray[np.float64], frame_scale: float) -> NDArray[np.float64]:
    """Shorter sides (n,) in input pixels of boxes (n, 4) in picture pixels; `frame_scale` is picture a input pixel."""
    return np.asarray(np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) / frame_scale)


def compare_faces(image: str, reference: Faces, artifact: Faces, frame_scale: float, threshold: float) -> ImageDrift:
    """Compare the faces of one picture; both sides hold detections from a score of 0.02 on."""
    r, a = _from(reference, threshold), _from(artifact, threshold)
    partner = assign(a.scores, a.boxes, r.boxes, MATCHED_IOU)
    mine = np.flatnonzero(partner >= 0)
    theirs = partner[mine]
    overlaps = np.array([iou(a.boxes[i, None], r.boxes[j, None])[0, 0] for i, j in zip(mine, theirs, strict=True)])
    area = np.prod(r.boxes[theirs, 2:] - r.boxes[theirs, :2], axis=1)
    shift = np.linalg.norm(a.landmarks[mine] - r.landmarks[theirs], axis=2).mean(axis=1) / np.sqrt(area)
    sizes = size_of(r.boxes, frame_scale)
    matched = [r.scores[theirs], sizes[theirs], overlaps, a.scores[mine] - r.scores[theirs], shift]
    judged = []
    for truth in TRUTHS:
        faces = _from(reference, truth).boxes
        judged.append(judge(ImageDetections(artifact.scores, artifact.boxes, faces, np.ones(len(faces), bool))))
    return ImageDrift(
        image,
        np.stack(matched, axis=1),
        _lost(image, r, np.setdiff1d(np.arange(len(r)), theirs), artifact, frame_scale),
        _lost(image, a, np.flatnonzero(partner < 0), reference, frame_scale),
        tuple(judged),
    )


class DetectionFloor:
    """Adds up `ImageDrift`s. Of a picture it keeps a few numbers a face, never pixels or tensors."""

    def __init__(self) -> None:
        self.images: list[ImageDrift] = []

    def add(self, drift: ImageDrift) -> None:
        """Count in one image."""
        self.images.append(drift)

    def summary(self) -> dict[str, Any]:
        """All figures over the images so far, as plain JSON values; None where there is nothing to take one of."""
        images = self.images
        matched = np.concatenate([image.matched for image in images]) if images else np.zeros((0, 5))
        missed = [face for image in images for face in image.missed]
        invented = [face for image in images for face in image.invented]
        _, _, overlap, score, landmark = matched.T
        aps = {
            f"ap_{truth:g}": none_if_nan(average_precision_of([image.judged[index] for image in images]))
            for index, truth in enumerate(TRUTHS)
        }
        return {
            **aps,
            "matched": len(matched),
            "missed": len(missed),
            "missed_faint": sum(face.faint for face in missed),
            "invented": len(invented),
            "invented_faint": sum(face.faint for face in invented),
            "iou_mean": _of(np.mean, overlap),
            "iou_p05": _of(lambda x: np.percentile(x, 5), overlap),
            "iou_least": _of(np.min, overlap),
            "score_shift_mean": _of(np.mean, score),
            "score_shift_absolute": _of(np.mean, np.abs(score)),
            "score_shift_largest": _of(np.max, np.abs(score)),
            "landmark_shift_mean": _of(np.mean, landmark),
            "landmark_shift_p95": _of(lambda x: np.percentile(x, 95), landmark),
            "by_size": _bands(SIZES, matched[:, 1], [f.size for f in missed], [f.size for f in invented]),
            "by_score": _bands(SCORES, matched[:, 0], [f.score for f in missed], [f.score for f in invented]),
        }


def none_if_nan(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else value


def _from(faces: Faces, threshold: float) -> Faces:
    kept = faces.scores >= threshold
    return Faces(faces.scores[kept], faces.boxes[kept], faces.landmarks[kept])


def _lost(image: str, faces: Faces, indices: NDArray[np.intp], other: Faces, frame_scale: float) -> tuple[Lost, ...]:
    sizes = size_of(faces.boxes, frame_scale)
    faint = [bool((iou(faces.boxes[i, None], other.boxes) >= MATCHED_IOU).any()) for i in indices]
    return tuple(
        Lost(image, float(faces.scores[i]), float(sizes[i]), tuple(faces.boxes[i].tolist()), seen)
        for i, seen in zip(indices, faint, strict=True)
    )


def _bands(
    limits: tuple[float, ...], matched: NDArray[np.float64], missed: list[float], invented: list[float]
) -> list[dict[str, Any]]:
    """Counts by half-open band [from, to); the last takes its upper limit in."""
    bands = []
    for low, high in pairwise(limits):
        band: dict[str, Any] = {"from": low, "to": None if high == float("inf") else high}
        for name, values in (("matched", matched), ("missed", missed), ("invented", invented)):
            array = np.asarray(values, np.float64)
            inside = (array >= low) & ((array < high) if high != limits[-1] else (array <= high))
            band[name] = int(inside.sum())
        bands.append(band)
    return bands


def _of(statistic: Any, values: NDArray[np.float64]) -> float | None:
    return float(statistic(values)) if len(values) else None
