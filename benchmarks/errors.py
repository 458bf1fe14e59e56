"""What goes wrong when bundles are measured."""

from __future__ import annotations

from retinaface_edge.runtime.errors import RetinaFaceEdgeError


class MeasurementError(RetinaFaceEdgeError):
    """A measurement that cannot be made, or figures that cannot be read or compared."""
