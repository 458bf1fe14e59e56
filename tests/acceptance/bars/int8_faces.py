"""The bars of INT8 for a trained network: `PYTHONPATH=tests python -m acceptance.bars.int8_faces BUNDLE --images DIR`.

On each backend the faces of INT8 are compared with those of FP32; and the INT8 TFLite file on two kernel sets with each
other, number by number.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from acceptance.bars.kernel_drift import kernel_faces
from retinaface_edge.benchmarks.drift.detection_metrics import compare_faces
from retinaface_edge.runtime import Bundle, Detector
from retinaface_edge.runtime.io.images import read_image
from retinaface_edge.runtime.io.picture_files import picture_files

BACKENDS = ("openvino", "tflite")
THRESHOLD, LOWEST = 0.5, 0.02
"""Scores from which a face counts, and from which it may be the partner of one that does."""


@dataclass(frozen=True)
class Int8Faces:
    """Faces of FP32, how many of them INT8 finds too, how many it finds besides, and the median IoU of both."""

    faces: int
    matched: int
    invented: int
    median_iou: float


def int8_faces(bundle: Bundle, backend: str, frames: Sequence[NDArray[np.uint8]]) -> Int8Faces:
    """Compare INT8 with FP32 on one backend."""
    missed, invented = 0, 0
    overlaps: list[float] = []
    with Detector.load(bundle, backend, "fp32") as fp32, Detector.load(bundle, backend, "int8") as int8:
        for frame in frames:
            found = compare_faces("", fp32.detect(frame, LOWEST), int8.detect(frame, LOWEST), 1.0, THRESHOLD)
            missed += len(found.missed)
            invented += len(found.invented)
            overlaps += found.matched[:, 2].tolist()
    return Int8Faces(len(overlaps) + missed, len(overlaps), invented, float(np.median(overlaps)) if overlaps else 0.0)


def kernels_agree(bundle: Bundle, frames: Sequence[NDArray[np.uint8]]) -> bool:
    """Whether XNNPACK and the reference kernels give the same faces to the bit, down to a score of `LOWEST`."""
    found = (kernel_faces(bundle, frames, kernels, LOWEST) for kernels in ("xnnpack", "reference"))
    return all(
        np.array_equal(ours.scores, theirs.scores)
        and np.array_equal(ours.boxes, theirs.boxes)
        and np.array_equal(ours.landmarks, theirs.landmarks)
        for ours, theirs in zip(*found, strict=True)
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=Path, nargs="+", required=True, metavar="DIR")
    options = parser.parse_args(arguments)
    bundle = Bundle.load(options.bundle)
    frames = [read_image(path) for path in picture_files(options.images).pictures]
    # IoU is the median over matched faces.
    print(f"{'backend':10} {'faces':>6} {'matched':>8} {'matched %':>10} {'invented':>9} {'IoU':>7}")
    for backend in BACKENDS:
        found = int8_faces(bundle, backend, frames)
        share, overlap = 100.0 * found.matched / max(found.faces, 1), found.median_iou
        print(f"{backend:10} {found.faces:6d} {found.matched:8d} {share:10.2f} {found.invented:9d} {overlap:7.4f}")
    print(f"XNNPACK and reference kernels to the bit: {'equal' if kernels_agree(bundle, frames) else 'different'}")


if __name__ == "__main__":
    main()
