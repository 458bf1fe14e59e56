"""Drawings of meshes for the report: FP32's wireframe under INT8's on the same face."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.mesh.topology import topology

from ..drift.result import MeshDrift
from .worst_images import figure, read_or_say

MARGIN = 0.25
"""What is shown around a face, as a share of its larger side."""

Points = NDArray[np.float64]


def mesh_pictures(meshes: Sequence[MeshDrift], folder: Path) -> Iterator[str]:
    """A figure for each face of `shown` whose picture is in `folder`; a sentence where one is not."""
    for row in meshes:
        for shown in row.shown:
            kind = "worst face" if shown.which == "worst" else "median face"
            caption = f"{row.artifact}, {kind}, {shown.percent_of_size:.2f} % of its size: {shown.image}"
            frame = read_or_say(folder / shown.image, caption)
            if isinstance(frame, str):
                yield frame
                continue
            yield _figure(caption, frame, np.array(shown.reference), np.array(shown.artifact))


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
