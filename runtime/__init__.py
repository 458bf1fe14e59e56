"""What ships on the device: NumPy and one backend."""

from .align import aligned
from .bundle import Bundle
from .detector import Detector
from .errors import BackendError, BundleError, ImageError, RetinaFaceEdgeError, SpecError, ThresholdError
from .postprocess import Face, Faces
from .spec import Spec

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "Detector",
    "Face",
    "Faces",
    "ImageError",
    "RetinaFaceEdgeError",
    "Spec",
    "SpecError",
    "ThresholdError",
    "aligned",
]
