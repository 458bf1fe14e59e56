"""Drift of meshes as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from ..drift.result import MeshDrift


def mesh_text(meshes: Sequence[MeshDrift]) -> str:
    """One row per artifact. Distances are of vertices, in percent of the face's size, the square root of its area."""
    lines = [
        "vertices of meshes: distance to FP32's in % of the face's size, √(box area)",
        f"{'mesh against FP32':20} {'faces':>6} {'mean %':>8} {'median %':>9} {'worst %':>8} {'pose °':>7}",
    ]
    for mesh in meshes:
        figures = (
            (mesh.mean_percent_of_size, 8, 3),
            (mesh.median_percent_of_size, 9, 3),
            (mesh.worst_percent_of_size, 8, 2),
            (mesh.pose_difference_degrees, 7, 2),
        )
        cells = (f" {value:{width}.{digits}f}" for value, width, digits in figures if value is not None)
        lines.append(f"{mesh.artifact:20} {mesh.faces:6d}{''.join(cells)}")
    return "\n".join(lines)
