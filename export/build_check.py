"""The checks that end a build: the detector's boxes are plausible, and INT8 finds the faces that FP32 finds.

The photographs are the portrait that installs with scikit-image, where it is there, and some calibration images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from retinaface_edge.runtime import backends
from retinaface_edge.runtime.detector import Detector
from retinaface_edge.runtime.ops.iou import detection_drift
from retinaface_edge.runtime.spec import Spec

from .self_check import Photograph, SelfCheckError, known_photograph, self_check

IMAGES = 8
MOST_DRIFT_PERCENT = 50.0
"""Largest drift in percent of INT8's boxes from FP32's, over all photographs. Sound quantisation stays below 15."""
LEAST_FACE = 24.0
"""Pixels of the input; a smaller known face need not be found."""


def check_fp32(model: onnx.ModelProto, spec: Spec, inputs: Sequence[NDArray[np.uint8]]) -> str | None:
    """Raise `SelfCheckError` for an implausible detector; gives what could not be checked, None where all was.

    `inputs` are calibration images, uint8 (1, H, W, 3); at most `IMAGES` of them are used.
    """
    photographs = _photographs(spec, inputs)
    found = self_check(model, spec, photographs)
    known = any(photograph.face is not None for photograph in photographs)
    if not known and not found.seen.candidates:
        return "self-check: not possible, as there is no face on the calibration images and no known photograph"
    found.require()
    return None


def check_int8(
    fp32: onnx.ModelProto, int8: onnx.ModelProto, spec: Spec, inputs: Sequence[NDArray[np.uint8]]
) -> str | None:
    """Raise `SelfCheckError` when INT8 finds other faces than FP32; gives what could not be checked."""
    pixels = [photograph.pixels[0] for photograph in _photographs(spec, inputs)]
    expected, found = (
        [detector.detect(image).boxes for image in pixels]
        for detector in (_detector(fp32, spec), _detector(int8, spec))
    )
    if not any(len(boxes) for boxes in expected):
        return "self-check: INT8 is not compared with FP32, which finds no face on the calibration images"
    drift = detection_drift(expected, found)
    if drift > MOST_DRIFT_PERCENT:
        raise SelfCheckError(
            f"INT8's boxes differ from FP32's by {drift:.0f} % (0: the same, 100: none in common) on "
            f"{len(pixels)} photographs; calibrate with photographs like those it will see, try --recipe accurate or "
            "--max-drift 5, or go on with --ignore-self-check"
        )
    return None


def _photographs(spec: Spec, inputs: Sequence[NDArray[np.uint8]]) -> list[Photograph]:
    chosen = [Photograph(pixels) for pixels in inputs[:: max(len(inputs) // IMAGES, 1)][:IMAGES]]
    known = known_photograph(spec)
    if known is None or known.face is None:
        return chosen
    x1, y1, x2, y2 = known.face
    return [known, *chosen] if min(x2 - x1, y2 - y1) >= LEAST_FACE else chosen


def _detector(model: onnx.ModelProto, spec: Spec) -> Detector:
    return Detector(spec, backends.load("onnxruntime", spec, [model.SerializeToString()], 1))
