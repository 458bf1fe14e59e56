"""The error of a build whose INT8 drifts too much. Separate from the search, so that naming it imports no backend."""

from __future__ import annotations

from retinaface_edge.runtime.errors import RetinaFaceEdgeError


class DriftError(RetinaFaceEdgeError):
    """No allocation of float layers meets the drift that was asked for. The command line exits with 1."""
