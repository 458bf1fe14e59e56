"""Accuracy-aware quantisation: the fewest float layers that keep the drift of every INT8 artifact within the limit.

Drift compares faces, not tensors (`runtime/ops/iou.py`): those that FP32 and the artifact find on calibration images
at a score of 0.5 and more.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from retinaface_edge.calibration.calibrate import Calibration
from retinaface_edge.calibration.dataset.image_set import Frame
from retinaface_edge.calibration.layer_report import sensitivities
from retinaface_edge.calibration.qdq import quantise
from retinaface_edge.runtime import backends
from retinaface_edge.runtime.detector import Detector
from retinaface_edge.runtime.ops.iou import detection_drift
from retinaface_edge.runtime.spec import Spec

from .build_request import Reporter, Silent
from .errors import DriftError
from .lower.openvino import lower_openvino
from .lower.tflite import lower_tflite
from .lower.tflite_schema import serialise

IMAGES = 40
BACKENDS = ("openvino", "tflite")
STEPS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 44, 56)
"""How many of the most sensitive layers are tried as floats, in turn."""


@dataclass(frozen=True)
class Point:
    """One allocation: its float layers, and by backend the drift in percent and the median milliseconds per frame."""

    float_layers: tuple[str, ...]
    drift: dict[str, float]
    milliseconds: dict[str, float]

    @property
    def worst(self) -> float:
        """The drift of the backend that drifts most."""
        return max(self.drift.values())

    def __str__(self) -> str:
        parts = [f"{name} drift {self.drift[name]:.2f} %, {self.milliseconds[name]:.1f} ms" for name in self.drift]
        return f"{len(self.float_layers):2} float layers: {'; '.join(parts)}"


def search(
    calibration: Calibration,
    model: onnx.ModelProto,
    spec: Spec,
    most: float,
    reporter: Reporter | None = None,
) -> tuple[Calibration, list[Point]]:
    """The calibration with the fewest float layers whose worst drift is at most `most`, and all that was tried.

    `model` is the FP32 model to compare with. Layers that the recipe keeps float stay so. Raises `DriftError` when even
    the last step misses; its message gives the least drift seen.
    """
    reporter = reporter or Silent()
    reporter.stage("measure each layer's effect on the outputs")
    effects = sensitivities(calibration, spec, reporter.progress)
    always = [layer for layer in effects if calibration.recipe.is_float(layer)]
    ordered = always + sorted((layer for layer in effects if layer not in always), key=lambda layer: effects[layer])
    images = calibration.images.inputs[:: max(len(calibration.images.inputs) // IMAGES, 1)][:IMAGES]
    reference = Detector(spec, backends.load("onnxruntime", spec, [model.SerializeToString()], 1))
    expected = [reference.detect(image[0]).boxes for image in images]
    points: list[Point] = []
    for count in STEPS:
        layers = tuple(ordered[: max(count, len(always))])
        candidate = replace(calibration, recipe=replace(calibration.recipe, float_layers=layers))
        point = _measured(candidate, spec, images, expected)
        reporter.stage(f"  {point}")
        points.append(point)
        if point.worst <= most:
            return candidate, points
    least = min(point.worst for point in points)
    raise DriftError(
        f"the drift asked for, {most:g} %, cannot be reached: the lowest is {least:.2f} %; allow more, or ship FP32"
    )


def _measured(
    calibration: Calibration, spec: Spec, images: Sequence[Frame], expected: Sequence[NDArray[np.float64]]
) -> Point:
    quantised = quantise(calibration, spec)
    files = {
        "openvino": list(lower_openvino(quantised, spec)),
        "tflite": [serialise(lower_tflite(quantised, calibration.quant_params))],
    }
    drift, milliseconds = {}, {}
    for backend in BACKENDS:
        detector = Detector(spec, backends.load(backend, spec, files[backend], 1))
        found, times = [], []
        for image in images:
            start = time.perf_counter()
            found.append(detector.detect(image[0]).boxes)
            times.append(time.perf_counter() - start)
        drift[backend] = detection_drift(expected, found)
        milliseconds[backend] = float(np.median(times)) * 1000.0
    return Point(calibration.recipe.float_layers, drift, milliseconds)
