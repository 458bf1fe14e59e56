"""The runtime: reads bundles and finds faces, with NumPy and one backend."""

import sys

# On import, OpenVINO reports to a web analytics service from a forked process, unless its telemetry is missing.
# Finding faces in pictures is private.
if "openvino" not in sys.modules:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

from .bundle.bundle import Bundle
from .detector import Detector
from .errors import BackendError, BundleError, ImageError, RetinaFaceEdgeError, SpecError, ThresholdError
from .fitting import FittingDetector
from .ops.align import aligned
from .ops.faces import Face, Faces
from .ops.postprocess import Bounds
from .spec import Spec

__all__ = [
    "BackendError",
    "Bounds",
    "Bundle",
    "BundleError",
    "Detector",
    "Face",
    "Faces",
    "FittingDetector",
    "ImageError",
    "RetinaFaceEdgeError",
    "Spec",
    "SpecError",
    "ThresholdError",
    "aligned",
]
