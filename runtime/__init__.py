"""What ships on the device: NumPy and one backend."""

import sys

# Importing OpenVINO tells a web analytics service so, from a process that it forks, unless its telemetry is missing.
# Who finds faces in pictures is nobody else's business.
if "openvino" not in sys.modules:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

from .bundle.bundle import Bundle
from .detector import Detector
from .errors import BackendError, BundleError, ImageError, RetinaFaceEdgeError, SpecError, ThresholdError
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
    "ImageError",
    "RetinaFaceEdgeError",
    "Spec",
    "SpecError",
    "ThresholdError",
    "aligned",
]
