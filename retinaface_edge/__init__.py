"""Compile a trained face detector into a device bundle, and run it.

>>> from retinaface_edge import Detector
>>> faces = Detector.load("bundle", backend="openvino", precision="int8").detect(frame)
"""

from typing import TYPE_CHECKING, Any

from retinaface_edge import runtime
from retinaface_edge.runtime import (
    BackendError,
    Bundle,
    BundleError,
    Detector,
    Face,
    Faces,
    ImageError,
    RetinaFaceEdgeError,
    Spec,
    SpecError,
    ThresholdError,
)

if TYPE_CHECKING:
    from retinaface_edge.runtime import FittingDetector, aligned

    __version__: str

__all__ = [
    "BackendError",
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


def __getattr__(name: str) -> Any:
    """What most programs do not use, imported when it is asked for.

    Reading the version alone takes a fifth of what importing NumPy takes.
    """
    if name == "__version__":
        from retinaface_edge.runtime.version import version

        return version()
    if name in __all__:
        return getattr(runtime, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
