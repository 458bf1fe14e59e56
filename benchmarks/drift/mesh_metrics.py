"""The floor of the dense branch: how far every artifact's meshes are from FP32's, on pictures without annotation.

Faces of two artifacts are the same where their boxes overlap by an IoU of at least 0.5; their meshes are then compared
vertex by vertex, in per cent of √(box area).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.backends import installed
from retinaface_edge.runtime.bundle.bundle import Artifact, Bundle
from retinaface_edge.runtime.detector import Detector
from retinaface_edge.runtime.io.images import read_image
from retinaface_edge.runtime.mesh.branch import head_pose
from retinaface_edge.runtime.ops.iou import iou
from retinaface_edge.runtime.ops.postprocess import Faces

REFERENCE = ("onnxruntime", "fp32")
MATCHED = 0.5

Vertices = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Pair:
    """One face by FP32 and by an artifact: vertices (468, 3) each; `shift` in per cent, `turn` in degrees."""

    image: str
    expected: Vertices
    found: Vertices
    shift: float
    turn: float


def mesh_drift(
    bundle: Bundle, files: Mapping[str, Path], progress: Callable[[Iterable[Any]], Iterable[Any]] = iter
) -> list[dict[str, Any]]:
    """One row an artifact of the dense branch but FP32 on ONNX Runtime: faces, mean, median and worst distance, pose.

    `files` are pictures by name. Distances are in the picture, in per cent of √(box area); `pose` is the mean
    difference of yaw, pitch and roll in degrees. Rows of INT8 have the worst face and the one in the middle in
    `shown`, to be drawn. Raises `BundleError` when the bundle has no branch, `ImageError` when a picture cannot be
    read.
    """
    reference = Detector.load(bundle, *REFERENCE)
    others = [m for m in bundle.meshes if (m.backend, m.precision) != REFERENCE and m.backend in installed()]
    detectors = [Detector.load(bundle, mesh.backend, mesh.precision) for mesh in others]
    pairs: list[list[_Pair]] = [[] for _ in others]
    for name, path in progress(list(files.items())):
        frame = read_image(path)
        expected = reference.detect(frame, mesh=True)
        for index, detector in enumerate(detectors):
            pairs[index] += _pairs(name, expected, detector.detect(frame, mesh=True))
    return [_row(mesh, found) for mesh, found in zip(others, pairs, strict=True)]


def _row(mesh: Artifact, pairs: Sequence[_Pair]) -> dict[str, Any]:
    shifts = [pair.shift for pair in pairs]
    row: dict[str, Any] = {
        "artifact": mesh.name,
        "faces": len(pairs),
        "mean_percent": float(np.mean(shifts)) if pairs else None,
        "median_percent": float(np.median(shifts)) if pairs else None,
        "worst_percent": max(shifts, default=None),
        "pose_degrees": float(np.mean([pair.turn for pair in pairs])) if pairs else None,
    }
    if pairs and mesh.precision == "int8":
        ordered = sorted(pairs, key=lambda pair: pair.shift)
        row["shown"] = [_shown("worst", ordered[-1]), _shown("median", ordered[len(ordered) // 2])]
    return row


def _shown(which: str, pair: _Pair) -> dict[str, Any]:
    """A face as JSON, for a drawing: x and y of the vertices by FP32 (`reference`) and by the artifact."""
    both = {"reference": pair.expected, "artifact": pair.found}
    return {
        "which": which,
        "image": pair.image,
        "percent": pair.shift,
        **{name: np.round(vertices[:, :2], 1).tolist() for name, vertices in both.items()},
    }


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


def _pairs(image: str, expected: Faces, found: Faces) -> Iterator[_Pair]:
    """The faces that both have found."""
    assert expected.vertices is not None and found.vertices is not None
    if not len(found):
        return
    for index, row in enumerate(iou(expected.boxes, found.boxes)):
        match = int(row.argmax())
        if row[match] < MATCHED:
            continue
        x1, y1, x2, y2 = expected.boxes[index]
        a, b = expected.vertices[index], found.vertices[match]
        distance = float(np.linalg.norm((a - b)[:, :2], axis=1).mean())
        turn = np.subtract(head_pose(a), head_pose(b))
        yield _Pair(
            image,
            a,
            b,
            100.0 * distance / math.sqrt((x2 - x1) * (y2 - y1)),
            float(np.abs((turn + 180.0) % 360.0 - 180.0).mean()),
        )
