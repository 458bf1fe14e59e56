"""Every kind of backbone: TFLite and OpenVINO compute in FP32 what ONNX Runtime does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from oracles.backends import LEAST_DECIBELS, by_onnxruntime, decibels
from untrained import random_detector

from retinaface_edge.export.lower.openvino import lower_openvino
from retinaface_edge.export.lower.tflite import lower_tflite
from retinaface_edge.export.lower.tflite_schema import serialise
from retinaface_edge.runtime import backends
from retinaface_edge.training.from_scratch import untrained


@pytest.mark.parametrize("backbone", ["mobilenet_v1_0.5", "mobilenet_v2", "resnet18", "resnet50", "slim", "rfb"])
def test_a_backbone_is_lowered_exactly(backbone: str) -> None:
    checkpoint = untrained(backbone, 0)
    detector = replace(checkpoint, model=random_detector(1, checkpoint.model.architecture))
    spec = detector.spec(160, 128)
    model = detector.graph(spec, 18)
    image = np.random.default_rng(0).integers(0, 256, spec.input_shape, np.uint8)
    expected = by_onnxruntime(model, image, [output.name for output in spec.outputs])
    for backend, files in {
        "tflite": [serialise(lower_tflite(model, {}))],
        "openvino": lower_openvino(model, spec),
    }.items():
        found = backends.load(backend, spec, files, 1).run(image)
        for output, got, wanted in zip(spec.outputs, found, expected, strict=True):
            assert decibels(got, wanted) >= LEAST_DECIBELS, (backend, output.name)
