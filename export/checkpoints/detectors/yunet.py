"""YuNet (Machine Intelligence Research 20, 2023) as libfacedetection and OpenCV Zoo export it to ONNX since 2023.

One cell has one anchor as large as the stride, at the cell's corner, with variances of 1: centre = corner + d·stride,
size = stride·exp(d). The score is the root of face × object, two sigmoids. Pixels are plain BGR, padded with black.
"""

from __future__ import annotations

from dataclasses import replace

from retinaface_edge.runtime.spec import BoxCoding, Colour, ScoreCoding

from ...graph.detector_graph import DetectorGraph
from .onnx_detector import OnnxDetector, level_heads, outputs_of

LICENCE = "MIT"


def read_yunet(detector: DetectorGraph) -> OnnxDetector | None:
    """The detector if the graph is YuNet's: two scores with sigmoids per stride, a box and five landmarks.

    Which score is which follows from their order in the file; the product does not depend on it.
    """
    levels = level_heads(detector)
    if levels is None or levels[0].landmark is None:
        return None
    if any(len(level.scores) != 2 or not all(head.sigmoid for head in level.scores) for level in levels):
        return None
    levels = tuple(replace(level, scores=tuple(sorted(level.scores, key=lambda head: head.order))) for level in levels)
    settings = {
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "colour": Colour.BGR,
        "padding": (0, 0, 0),
        "strides": detector.strides,
        "anchor_sizes": tuple((stride,) * levels[0].anchors for stride in detector.strides),
        "origin": 0.0,
        "variances": (1.0, 1.0),
        "box_coding": BoxCoding.CENTRE_SIZE,
        "score": ScoreCoding.FACE_OBJECT,
        "blend_landmarks": False,
        "landmarks": 5,
    }
    return OnnxDetector("YuNet", "YuNet", LICENCE, detector, settings, outputs_of(levels, ("score", "object")))
