"""INT8 forms of the detector, so that the dense branch trains on their features, boxes and landmarks.

INT8 moves a box by about a hundredth of its size, and a feature by a quarter of its deviation: a branch loses more to
that than to its own INT8. The samples are drawn from both, so that it learns what is the same in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from retinaface_edge.calibration.calibrate import calibrate
from retinaface_edge.calibration.dataset.image_set import image_set
from retinaface_edge.calibration.qdq import quantise
from retinaface_edge.calibration.recipe import read_recipe
from retinaface_edge.export.lower.openvino import lower_openvino
from retinaface_edge.export.lower.tflite import lower_tflite
from retinaface_edge.export.lower.tflite_schema import serialise
from retinaface_edge.runtime.spec import Spec

from .augment import Photograph

RECIPE = "balanced"
IMAGES = 100

Files = tuple[str, Sequence[bytes]]
"""A backend and the files of one artifact of it."""


def int8_forms(
    model: onnx.ModelProto, spec: Spec, photographs: Sequence[Photograph], progress: Callable[..., Any] = iter
) -> tuple[Files, ...]:
    """The FP32 `model` of `spec.with_features` as INT8 for OpenVINO and TFLite, calibrated on the photographs."""
    chosen = photographs[:: -(-len(photographs) // IMAGES)]
    frames = [np.ascontiguousarray(np.asarray(photograph.picture)[:, :, ::-1]) for photograph in chosen]
    calibration = calibrate(model, spec, image_set(spec, frames, "the photographs"), read_recipe(RECIPE), progress)
    quantised = quantise(calibration, spec)
    return (
        ("openvino", lower_openvino(quantised, spec.with_features)),
        ("tflite", (serialise(lower_tflite(quantised, calibration.quant_params)),)),
    )
