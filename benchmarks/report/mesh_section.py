"""The report's section on 3D meshes: a floor for each artifact, and FP32's wireframe under INT8's on the same face."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.mesh.topology import topology

from .text import number
from .worst_images import figure, read_or_say

MARGIN = 0.25
"""What is shown around a face, as a share of its larger side."""

Points = NDArray[np.float64]


def mesh_table(meshes: Sequence[Mapping[str, Any]], costs: Mapping[str, float]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what `mesh_drift` found, and of `costs`, a frame's time with meshes over that without."""
    header = ["artifact", "faces", "mean, %", "median, %", "worst, %", "pose, °", *(["time"] if costs else [])]
    figures = (("mean_percent", 3), ("median_percent", 3), ("worst_percent", 2), ("pose_degrees", 2))
    rows = [
        [row["artifact"], str(row["faces"]), *(number(row[key], digits) for key, digits in figures)] for row in meshes
    ]
    if costs:
        rows = [[*row, f"× {number(costs.get(row[0]), 3)}"] for row in rows]
    return header, rows


def mesh_pictures(meshes: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[str]:
    """A figure for each face of `shown` whose picture is in `folder`; a sentence where one is not."""
    for row in meshes:
        for shown in row.get("shown", ()):
            kind = "worst face" if shown["which"] == "worst" else "face in the middle"
            caption = f"{row['artifact']}, {kind}, {shown['percent']:.2f} %: {shown['image']}"
            frame = read_or_say(folder / shown["image"], caption)
            if isinstance(frame, str):
                yield frame
                continue
            yield _figure(caption, frame, *(np.array(shown[key], np.float64) for key in ("reference", "artifact")))


def _figure(caption: str, frame: NDArray[np.uint8], expected: Points, found: Points) -> str:
    points = np.concatenate([expected, found])
    margin = MARGIN * float(np.ptp(points, axis=0).max())
    height, width = frame.shape[:2]
    left, top = np.clip(np.floor(points.min(axis=0) - margin), 0, (width - 2, height - 2)).astype(int).tolist()
    right, bottom = (
        np.clip(np.ceil(points.max(axis=0) + margin), (left + 2, top + 2), (width, height)).astype(int).tolist()
    )
    stroke = f' stroke-width="{max(right - left, bottom - top) / 700:.3f}"'
    wires = (
        f'<path class="{name}"{stroke} d="{_wireframe(vertices - (left, top))}"/>'
        for name, vertices in (("fp32", expected), ("other", found))
    )
    return figure(caption, frame[top:bottom, left:right], wires)


def _wireframe(points: Points) -> str:
    """Every edge of the mesh as one path."""
    lines = points[topology().edges].reshape(-1, 4).tolist()
    return "".join(f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" for x1, y1, x2, y2 in lines)
