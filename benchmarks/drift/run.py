"""Drift: every artifact of a bundle against FP32, on pictures that need no annotation.

The pairs that are compared: FP32 on ONNX Runtime with every other artifact; the quantised ONNX with the INT8 artifacts
that were made of it, which shows a backend's own faults without the noise of quantisation; and a checkpoint with every
artifact, if one is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

from retinaface_edge.runtime.io.images import find_images

from ..inference.measurement import (
    Measurement,
    Pair,
    Plan,
    Result,
    Unreadable,
    named_files,
    set_digest,
)
from ..inference.network_under_test import MeasurementError, Subject
from ..inference.result_cache import ResultCache
from ..results import faces_json, judged_json, result_header
from .detection_metrics import DetectionFloor, ImageDrift, compare_faces, none_if_nan
from .tensor_metrics import TensorDrift, TensorFloor

REFERENCE = "onnxruntime fp32"
QUANTISED = "onnxruntime int8"
WORST_IMAGES = 8

Progress = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Comparison:
    """One pair over all pictures."""

    reference: Subject
    artifact: Subject
    tensors: TensorFloor
    detections: DetectionFloor = field(default_factory=DetectionFloor)


def pairs_of(subjects: Sequence[Subject], every: bool = False) -> list[Pair]:
    """Which subjects to compare, as indices (reference, artifact).

    Raises `MeasurementError` when there is nothing to compare, or FP32 on ONNX Runtime is not among them.
    """
    names = [subject.name for subject in subjects]
    if every:
        pairs = [(r, a) for r, a in permutations(range(len(names)), 2) if r < a]
    elif REFERENCE not in names:
        raise MeasurementError(f"{REFERENCE}, which the others are compared with, is not among: {', '.join(names)}")
    else:
        first = names.index(REFERENCE)
        pairs = [(first, index) for index in range(len(names)) if index != first]
        if QUANTISED in names:
            one = names.index(QUANTISED)
            pairs += [(one, i) for i, subject in enumerate(subjects) if subject.precision == "int8" and i != one]
        pairs += [
            (r, a)
            for r, subject in enumerate(subjects)
            if subject.loader
            for a in range(len(names))
            if a not in (r, first)
        ]
    if not pairs:
        raise MeasurementError(f"drift compares artifacts, and there is only: {', '.join(names)}")
    return pairs


def read_set(folder: Path, limit: int | None = None) -> dict[str, Path]:
    """The pictures of a folder by their path below it; at most `limit`, spread evenly. Raises `ImageError`."""
    paths = find_images([folder])
    if limit is not None and len(paths) > limit:
        paths = [paths[index * len(paths) // limit] for index in range(limit)]
    return named_files(paths, folder if folder.is_dir() else folder.parent)


def drift(
    subjects: Sequence[Subject],
    files: Mapping[str, Path],
    cache: ResultCache,
    *,
    every_pair: bool = False,
    score_threshold: float = 0.5,
    workers: int = 1,
    dask: str | None = None,
    progress: Progress = iter,
) -> dict[str, Any]:
    """Compare `subjects` on the pictures `files` (name to path). Gives the result as plain JSON values.

    Raises `MeasurementError` when no picture can be read; those that cannot are named in the result.
    """
    spec = subjects[0].spec
    plan = Plan(tuple(subjects), tuple(pairs_of(subjects, every_pair)))
    comparisons = [Comparison(subjects[r], subjects[a], TensorFloor(spec)) for r, a in plan.pairs]
    skipped: list[Unreadable] = []
    measurement = Measurement(plan, files, cache, workers, dask)
    worst = _Worst()
    for result in progress(measurement):
        if isinstance(result, Unreadable):
            skipped.append(result)
            continue
        frame_scale = max(result.size[0] / spec.width, result.size[1] / spec.height)
        for (r, a), sums, comparison in zip(plan.pairs, result.sums, comparisons, strict=True):
            comparison.tensors.add(result.name, sums)
            found = compare_faces(result.name, result.faces[r], result.faces[a], frame_scale, score_threshold)
            comparison.detections.add(found)
            if comparison.reference.name == REFERENCE:
                worst.add(comparison, found, result, r, a)
    if len(skipped) == len(measurement):
        raise MeasurementError(f"none of {len(measurement)} pictures can be read; the first: {skipped[0].reason}")
    digests = {n: d for n, d in measurement.image_digests.items() if n not in {s.name for s in skipped}}
    return {
        **result_header("drift", subjects),
        "input": f"{spec.width}x{spec.height}",
        "score_threshold": score_threshold,
        "images": {
            "count": len(digests),
            "digest": set_digest(digests),
            "skipped": [asdict(s) for s in sorted(skipped, key=lambda s: s.name)],
        },
        "comparisons": [_comparison_json(comparison) for comparison in comparisons],
        "worst_images": worst.json(score_threshold),
    }


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    images = comparison.detections.images
    return {
        "reference": comparison.reference.name,
        "artifact": comparison.artifact.name,
        "precision": comparison.artifact.precision,
        "tensors": [_tensor_json(figure) for figure in comparison.tensors.figures()],
        "detections": comparison.detections.summary(),
        "missed": [asdict(face) for image in images for face in image.missed],
        "invented": [asdict(face) for image in images for face in image.invented],
        "per_image": [
            {
                "image": image.image,
                "matched": len(image.matched),
                "iou_mean": float(image.matched[:, 2].mean()) if len(image.matched) else None,
                "landmark_shift_mean": float(image.matched[:, 4].mean()) if len(image.matched) else None,
                **judged_json({"ap_0.02": image.judged[0], "ap_0.5": image.judged[1]}),
            }
            for image in images
        ],
    }


def _tensor_json(figure: TensorDrift) -> dict[str, Any]:
    return {
        "output": figure.output.name,
        "head": figure.output.head,
        "stride": figure.output.stride,
        "anchors": figure.anchors,
        "count": figure.count,
        "sqnr_db": none_if_nan(figure.sqnr_db),
        "cosine": none_if_nan(figure.cosine),
        "gain": none_if_nan(figure.gain),
        "largest_difference": none_if_nan(figure.largest_difference),
        "worst_image": figure.worst_image,
        "worst_sqnr_db": none_if_nan(figure.worst_sqnr_db),
    }


class _Worst:
    """The pictures that drifted most, each with the artifact that drifted most there.

    By what a viewer would see: the scores of faces missed or invented, and how far boxes moved.
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, dict[str, Any]]] = {}

    def add(self, comparison: Comparison, found: ImageDrift, result: Result, r: int, a: int) -> None:
        surprise = sum(face.score for face in (*found.missed, *found.invented))
        badness = surprise + float((1.0 - found.matched[:, 2]).sum())
        if result.name in self._kept and self._kept[result.name][0] >= badness:
            return
        self._kept[result.name] = (
            badness,
            {
                "reference": comparison.reference.name,
                "artifact": comparison.artifact.name,
                "image": result.name,
                "badness": badness,
                "reference_faces": result.faces[r],
                "artifact_faces": result.faces[a],
            },
        )
        if len(self._kept) > WORST_IMAGES:
            least = min(self._kept, key=lambda name: self._kept[name][0])
            del self._kept[least]

    def json(self, threshold: float) -> list[dict[str, Any]]:
        records = [record for _, record in sorted(self._kept.values(), key=lambda kept: kept[0], reverse=True)]
        for record in records:
            for side in ("reference_faces", "artifact_faces"):
                record[side] = faces_json(record[side], threshold)
        return records
