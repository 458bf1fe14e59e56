"""Compile a trained face detector into a device bundle, and run it.

>>> from retinaface_edge import Detector
>>> faces = Detector.load("bundle", backend="openvino", precision="int8").detect(frame)
"""

from retinaface_edge.runtime import (
    BackendError,
    Bundle,
    BundleError,
    Detector,
    Face,
    Faces,
    FittingDetector,
    ImageError,
    RetinaFaceEdgeError,
    Spec,
    SpecError,
    ThresholdError,
    aligned,
)

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


def __getattr__(name: str) -> str:
    """`__version__`, when it is asked for: reading it takes a fifth of what importing NumPy takes."""
    if name == "__version__":
        from retinaface_edge.runtime.version import version

        return version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
