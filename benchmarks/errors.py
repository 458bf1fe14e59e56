"""Error of the benchmarks."""

from retinaface_edge.runtime.errors import RetinaFaceEdgeError


class MeasurementError(RetinaFaceEdgeError):
    """A measurement that cannot be made, or results that cannot be read or compared."""
