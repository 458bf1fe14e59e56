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
    ImageError,
    RetinaFaceEdgeError,
    Spec,
    SpecError,
    ThresholdError,
    aligned,
)
from retinaface_edge.runtime.version import version

__version__ = version()

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
