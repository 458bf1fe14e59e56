"""The runtime: reads bundles and finds faces, with NumPy and one backend."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

# On import, OpenVINO reports to a web analytics service from a forked process, unless its telemetry is missing.
# Finding faces in pictures is private.
if "openvino" not in sys.modules:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

from .bundle.bundle import Bundle
from .detector import Detector
from .errors import BackendError, BundleError, ImageError, RetinaFaceEdgeError, SpecError, ThresholdError
from .ops.faces import Face, Faces
from .ops.postprocess import Bounds
from .spec import Spec

if TYPE_CHECKING:
    from .fitting import FittingDetector
    from .ops.align import aligned

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

_LATE = {"FittingDetector": "fitting", "aligned": "ops.align"}
"""What most programs do not use, and where it is: imported when it is asked for."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
    globals()[name] = found
    return found
