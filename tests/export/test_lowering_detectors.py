"""Published detectors in the form of the contract: TFLite and OpenVINO compute in FP32 what ONNX Runtime does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oracles.backends import by_onnxruntime, decibels
from oracles.scrfd import SIZES, export, small, trained_like

from retinaface_edge.export.checkpoints.detectors.onnx_detector import OnnxDetector
from retinaface_edge.export.checkpoints.detectors.scrfd import read_scrfd
from retinaface_edge.export.checkpoints.detectors.yunet import read_yunet
from retinaface_edge.export.graph.detector_graph import read_detector_graph
from retinaface_edge.export.lower.openvino import lower_openvino
from retinaface_edge.export.lower.tflite import lower_tflite
from retinaface_edge.export.lower.tflite_schema import serialise
from retinaface_edge.runtime import backends

LEAST_DECIBELS = 100.0


def read(content: bytes) -> OnnxDetector:
    graph = read_detector_graph(content)
    detector = read_yunet(graph) or read_scrfd(graph)
    assert detector is not None
    return detector


def assert_lowered_exactly(detector: OnnxDetector, width: int, height: int) -> list[str]:
    """That both backends are within 100 dB at every output; gives TFLite's operators."""
    spec = detector.spec(width, height)
    model = detector.graph(spec, 18)
    image = np.random.default_rng(0).integers(0, 256, spec.input_shape, np.uint8)
    expected = by_onnxruntime(model, image, [output.name for output in spec.outputs])
    lowered = lower_tflite(model, {})
    for backend, files in {"tflite": [serialise(lowered)], "openvino": lower_openvino(model, spec)}.items():
        found = backends.load(backend, spec, files, 1).run(image)
        for output, got, wanted in zip(spec.outputs, found, expected, strict=True):
            assert decibels(got, wanted) >= LEAST_DECIBELS, (backend, output.name)
    return [operator.name for operator in lowered.operators]


@pytest.mark.parametrize("name", SIZES)
def test_every_size_of_scrfd_is_lowered_exactly(name: str, tmp_path: Path) -> None:
    """Residual blocks with averages in their shortcuts, depthwise pairs, and the group norm of the large ones."""
    operators = assert_lowered_exactly(
        read(export(trained_like(small(SIZES[name])), tmp_path / "scrfd.onnx", dynamic=True).read_bytes()), 160, 128
    )
    assert operators.count("RSQRT") == (SIZES[name].stacked * 3 if SIZES[name].groups else 0)
    assert not {"TRANSPOSE", "DEQUANTIZE"} & set(operators)


@pytest.mark.parametrize("file", ["yunet_n_dynamic.onnx", "scrfd_500m_bnkps.onnx", "scrfd_2.5g_kps.onnx"])
def test_published_files_are_lowered_exactly(shared: Path, file: str) -> None:
    assert_lowered_exactly(read((shared / "peers" / file).read_bytes()), 320, 256)
