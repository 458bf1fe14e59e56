"""The floor of the dense branch: how far every artifact's meshes are from FP32's, on pictures without annotation.

Faces of two artifacts are the same where their boxes overlap by an IoU of at least 0.5; their meshes are then compared
vertex by vertex, in per cent of √(box area).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.backends import installed
from ..runtime.bundle import Bundle
from ..runtime.detector import Detector
from ..runtime.drift import iou
from ..runtime.images import read_image
from ..runtime.mesh import head_pose
from ..runtime.postprocess import Faces

REFERENCE = ("onnxruntime", "fp32")
MATCHED = 0.5


def mesh_drift(
    bundle: Bundle, paths: Iterable[Path], progress: Callable[[Iterable[Any]], Iterable[Any]] = iter
) -> list[dict[str, Any]]:
    """One row an artifact of the dense branch but FP32 on ONNX Runtime: faces, mean, median and worst distance, pose.

    Distances are in the picture, in per cent of √(box area); `pose` is the mean difference of yaw, pitch and roll in
    degrees. Raises `BundleError` when the bundle has no branch, `ImageError` when a picture cannot be read.
    """
    reference = Detector.load(bundle, *REFERENCE)
    others = [m for m in bundle.meshes if (m.backend, m.precision) != REFERENCE and m.backend in installed()]
    detectors = [Detector.load(bundle, mesh.backend, mesh.precision) for mesh in others]
    shifts: list[list[float]] = [[] for _ in others]
    turns: list[list[float]] = [[] for _ in others]
    for path in progress(list(paths)):
        frame = read_image(path)
        expected = reference.detect(frame, mesh=True)
        for index, detector in enumerate(detectors):
            for a, b, size in _pairs(expected, detector.detect(frame, mesh=True)):
                shifts[index].append(100.0 * float(np.linalg.norm((a - b)[:, :2], axis=1).mean()) / size)
                turn = np.subtract(head_pose(a), head_pose(b))
                turns[index].append(float(np.abs((turn + 180.0) % 360.0 - 180.0).mean()))
    return [
        {
            "artifact": mesh.name,
            "faces": len(shift),
            "mean_percent": float(np.mean(shift)) if shift else None,
            "median_percent": float(np.median(shift)) if shift else None,
            "worst_percent": float(np.max(shift)) if shift else None,
            "pose_degrees": float(np.mean(turn)) if turn else None,
        }
        for mesh, shift, turn in zip(others, shifts, turns, strict=True)
    ]


def mesh_drift_text(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a plain table."""
    head = f"{'mesh against FP32':20} {'faces':>6} {'mean %':>8} {'median %':>9} {'worst %':>8} {'pose °':>7}"
    lines = [head]
    for row in rows:
        if row["mean_percent"] is None:
            lines.append(f"{row['artifact']:20} {0:6d}")
            continue
        lines.append(
            f"{row['artifact']:20} {row['faces']:6d} {row['mean_percent']:8.3f} {row['median_percent']:9.3f} "
            f"{row['worst_percent']:8.2f} {row['pose_degrees']:7.2f}"
        )
    return "\n".join(lines)


def _pairs(expected: Faces, found: Faces) -> list[tuple[NDArray[np.float64], NDArray[np.float64], float]]:
    """Vertices of the same face by both, and the size of its box."""
    assert expected.vertices is not None and found.vertices is not None
    if not len(found):
        return []
    overlaps = iou(expected.boxes, found.boxes)
    pairs = []
    for index, row in enumerate(overlaps):
        match = int(row.argmax())
        if row[match] >= MATCHED:
            x1, y1, x2, y2 = expected.boxes[index]
            pairs.append((expected.vertices[index], found.vertices[match], float(np.sqrt((x2 - x1) * (y2 - y1)))))
    return pairs
