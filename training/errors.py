"""The error for data or settings from which nothing can be learnt."""

from __future__ import annotations

from retinaface_edge.runtime.errors import RetinaFaceEdgeError


class TrainingError(RetinaFaceEdgeError):
    """Labels, photographs or settings from which nothing can be learnt."""
