"""Every artifact of a bundle side by side: size, speed, and how far its faces are from FP32's.

FP32 on ONNX Runtime is the reference. Frames are timed from frame to faces on one thread, artifacts taking turns frame
by frame, so that a machine that slows down slows all of them; medians are given.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..runtime.backends import installed
from ..runtime.bundle import Artifact, Bundle
from ..runtime.detector import Detector
from ..runtime.postprocess import Faces
from .accuracy import iou

REFERENCE = ("onnxruntime", "fp32")
WARM_UP = 3
MATCHED = 0.5


@dataclass(frozen=True)
class Row:
    """One artifact: median milliseconds a frame; faces found over all frames, and of the reference's, those missed.

    `score` and `corner` are the largest differences of matched faces to the reference's, `corner` in frame pixels.
    """

    artifact: Artifact
    milliseconds: float
    faces: int
    missed: int
    score: float
    corner: float


def compare_artifacts(bundle: Bundle, frames: Sequence[NDArray[np.uint8]], rounds: int = 20) -> list[Row]:
    """Measure all artifacts whose backend is installed, on `frames` (BGR uint8), `rounds` times each.

    Raises `BundleError` when the reference artifact is missing, `BackendError` when its backend is.
    """
    reference = Detector.load(bundle, *REFERENCE)
    expected = [reference.detect(frame) for frame in frames]
    artifacts = [artifact for artifact in bundle.artifacts if artifact.backend in installed()]
    detectors = [Detector.load(bundle, artifact.backend, artifact.precision) for artifact in artifacts]
    found = [[detector.detect(frame) for frame in frames] for detector in detectors]
    for detector in detectors:
        for _ in range(WARM_UP):
            detector.detect(frames[0])
    times = np.zeros((rounds, len(frames), len(detectors)))
    for turn in range(rounds):
        for index, frame in enumerate(frames):
            for offset in range(len(detectors)):
                which = (turn + index + offset) % len(detectors)
                start = time.perf_counter()
                detectors[which].detect(frame)
                times[turn, index, which] = time.perf_counter() - start
    medians = np.median(times, axis=(0, 1)) * 1000.0
    return [
        _row(artifact, float(median), faces, expected)
        for artifact, median, faces in zip(artifacts, medians, found, strict=True)
    ]


def format_table(rows: Sequence[Row]) -> str:
    """The rows as plain text, aligned."""
    lines = [("artifact", "bytes", "ms a frame", "faces", "missed", "largest difference to FP32")]
    for row in rows:
        difference = f"score {row.score:.4f}, corner {row.corner:.2f} px"
        lines.append(
            (
                row.artifact.name,
                f"{row.artifact.bytes:,}",
                f"{row.milliseconds:.1f}",
                str(row.faces),
                str(row.missed),
                difference,
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    numbers = range(1, 5)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _row(artifact: Artifact, median: float, found: Sequence[Faces], expected: Sequence[Faces]) -> Row:
    score = corner = 0.0
    missed = 0
    for faces, wanted in zip(found, expected, strict=True):
        overlaps = iou(wanted.boxes, faces.boxes)
        for index in range(len(wanted)):
            match = int(overlaps[index].argmax()) if len(faces) else -1
            if match < 0 or overlaps[index, match] < MATCHED:
                missed += 1
                continue
            score = max(score, float(abs(wanted.scores[index] - faces.scores[match])))
            corner = max(corner, float(np.abs(wanted.boxes[index] - faces.boxes[match]).max()))
    return Row(artifact, median, sum(map(len, found)), missed, score, corner)
