"""SCRFD (arXiv 2105.04714) as InsightFace exports it to ONNX: 500M to 34G, with five landmarks or without.

The box of a cell is its distances to the left, top, right and bottom in strides, from the cell's corner; landmarks are
offsets from there in strides; one logit per anchor. Pixels are (RGB − 127.5) / 128, and the frame is padded with black.
"""

from __future__ import annotations

from retinaface_edge.runtime.spec import BoxCoding, Colour, ScoreCoding

from ...graph.detector_graph import DetectorGraph
from .onnx_detector import OnnxDetector, level_heads, outputs_of

LICENCE = "non-commercial research (InsightFace's published weights)"


def read_scrfd(detector: DetectorGraph) -> OnnxDetector | None:
    """The detector if the graph is SCRFD's: one score with a sigmoid per stride, a box, and landmarks or none."""
    levels = level_heads(detector)
    if levels is None or any(len(level.scores) != 1 or not level.scores[0].sigmoid for level in levels):
        return None
    anchors, landmarks = levels[0].anchors, 0 if levels[0].landmark is None else 5
    settings = {
        "mean": (127.5, 127.5, 127.5),
        "std": (128.0, 128.0, 128.0),
        "colour": Colour.RGB,
        "padding": (0, 0, 0),
        "strides": detector.strides,
        "anchor_sizes": tuple(tuple(stride * 2 ** (n + 1) for n in range(anchors)) for stride in detector.strides),
        "origin": 0.0,
        "variances": (1.0, 1.0),
        "box_coding": BoxCoding.DISTANCES,
        "blend_landmarks": False,
        "score": ScoreCoding.LOGIT,
        "landmarks": landmarks,
    }
    return OnnxDetector("SCRFD", "SCRFD", LICENCE, detector, settings, outputs_of(levels, ("score",)))
