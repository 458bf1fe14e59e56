"""The features of SCRFD and YuNet that a dense branch reads: what their heads read, on every backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from oracles.backends import by_onnxruntime, decibels
from oracles.scrfd import SIZES, Scrfd, export, small, trained_like

from retinaface_edge.cli.main import main
from retinaface_edge.export.checkpoints.detectors.onnx_detector import OnnxDetector
from retinaface_edge.export.checkpoints.detectors.scrfd import read_scrfd
from retinaface_edge.export.checkpoints.source import checkpoint_file
from retinaface_edge.export.graph.detector_graph import GraphError, read_detector_graph
from retinaface_edge.export.graph.shared_features import feature_channels
from retinaface_edge.export.lower.openvino import lower_openvino
from retinaface_edge.export.lower.tflite import lower_tflite
from retinaface_edge.export.lower.tflite_schema import serialise
from retinaface_edge.runtime import Bundle, Detector, backends
from retinaface_edge.runtime.io.images import read_image
from retinaface_edge.runtime.spec import Mesh, Spec

WITH_LANDMARKS = [name for name in SIZES if SIZES[name].landmarks]


def read(path: Path) -> OnnxDetector:
    detector = read_scrfd(read_detector_graph(path.read_bytes()))
    assert detector is not None
    return detector


def features_of(model: Scrfd, image: np.ndarray, spec: Spec) -> list[np.ndarray]:
    """What PyTorch's heads read, NHWC."""
    pixels = (image[..., ::-1].astype(np.float32) - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    with torch.no_grad():
        levels = model.neck(model.backbone(torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))))
        towers = [model.tower_list[index % len(model.tower_list)] for index in range(len(levels))]
        found = [tower.stack(level) for tower, level in zip(towers, levels, strict=True)]
    return [value.permute(0, 2, 3, 1).numpy() for value in found]


@pytest.mark.parametrize("name", WITH_LANDMARKS)
def test_features_are_what_the_heads_read_and_the_heads_stay_as_they_are(name: str, tmp_path: Path) -> None:
    model = trained_like(small(SIZES[name]))
    detector = read(export(model, tmp_path / "scrfd.onnx", dynamic=True))
    spec = detector.spec(160, 128, Mesh(channels=detector.feature_channels))
    image = np.random.default_rng(0).integers(0, 256, spec.input_shape, np.uint8)
    names = [output.name for output in spec.with_features.outputs]
    with_branch, plain = detector.graph(spec, 18), detector.graph(detector.spec(160, 128), 18)
    values = by_onnxruntime(with_branch, image, names)
    heads = by_onnxruntime(plain, image, names[: len(spec.outputs)])
    assert all(np.array_equal(a, b) for a, b in zip(values, heads, strict=False))
    wanted = features_of(model, image, spec)
    for found, expected in zip(values[len(spec.outputs) :], wanted, strict=True):
        assert np.abs(found - expected).max() <= 1e-5 * max(float(np.abs(expected).max()), 1.0)
    lowered = {
        "tflite": [serialise(lower_tflite(with_branch, {}))],
        "openvino": lower_openvino(with_branch, spec.with_features),
    }
    for backend, files in lowered.items():
        for got, expected in zip(backends.load(backend, spec.with_features, files, 1).run(image), values, strict=True):
            assert decibels(got, expected) >= 100.0, backend


def test_a_branch_for_other_channels_is_refused(tmp_path: Path) -> None:
    detector = read(export(trained_like(small(SIZES["500M"])), tmp_path / "scrfd.onnx", dynamic=True))
    with pytest.raises(GraphError, match=r"have 32 channels, and the dense branch was made for 64"):
        detector.graph(detector.spec(160, 128, Mesh(channels=64)), 18)


def _convolution(source: str, name: str, inputs: int, outputs: int, stride: int = 1) -> tuple[list, list]:
    random = np.random.default_rng(list(name.encode()))  # equal convolutions would be made one
    weights = random.standard_normal((outputs, inputs, stride, stride)).astype(np.float32)
    node = helper.make_node("Conv", [source, f"{name}.weight"], [name], name, strides=[stride, stride])
    return [node], [numpy_helper.from_array(weights, f"{name}.weight")]


def _graph(features: dict[int, int], apart: bool = False) -> bytes:
    """Heads over one convolution per stride with so many channels; with `apart`, the boxes read one of their own."""
    nodes, constants, outputs = [], [], []
    for stride, channels in features.items():
        parts = [_convolution("image", f"f{stride}", 3, channels, stride)]
        box_source = f"f{stride}"
        if apart:
            parts.append(_convolution("image", f"g{stride}", 3, channels, stride))
            box_source = f"g{stride}"
        for name, source, count in (("score", f"f{stride}", 2), ("box", box_source, 8), ("point", box_source, 20)):
            parts.append(_convolution(source, f"{name}{stride}", channels, count))
            outputs.append(helper.make_tensor_value_info(f"{name}{stride}", TensorProto.FLOAT, None))
        for made, weights in parts:
            nodes += made
            constants += weights
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "height", "width"])
    graph = helper.make_graph(nodes, "graph", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (_graph({8: 16, 16: 16, 32: 24}), r"16 at stride 8, 16 at stride 16, 24 at stride 32.*no dense branch"),
        (_graph({8: 16, 16: 16}, apart=True), r"heads at stride 8 read no common features, so no dense branch"),
    ],
)
def test_a_graph_without_common_features_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(GraphError, match=said):
        feature_channels(read_detector_graph(content))


@pytest.mark.parametrize("file", ["scrfd_500m_bnkps.onnx", "scrfd_2.5g_kps.onnx", "yunet_n_dynamic.onnx"])
def test_published_files_have_features(shared: Path, file: str) -> None:
    assert checkpoint_file(shared / "peers" / file).read().feature_channels == 64


def test_a_branch_is_trained_on_yunet_and_built_into_its_bundle(shared: Path, tmp_path: Path) -> None:
    """From photographs to vertices; a branch of so little training is rough, but lies on the face."""
    checkpoint, photographs = str(shared / "peers" / "yunet_n_dynamic.onnx"), tmp_path / "photographs"
    photographs.mkdir()
    for picture in sorted((shared / "faces").glob("*.jpg"))[:12]:
        (photographs / picture.name).write_bytes(picture.read_bytes())
    teacher, branch, output = shared / "mesh" / "face_landmark_468.tflite", tmp_path / "mesh", tmp_path / "bundle"
    training = ["--images", str(photographs), "--teacher", str(teacher), "--cache", str(tmp_path / "cache")]
    little = ["--canvases", "40", "--epochs", "4", "--quiet"]
    assert main(["train-mesh", "--checkpoint", checkpoint, *training, "--output", str(branch), *little]) == 0
    built = ["--mesh", str(branch), "--calibration", str(photographs), "--recipe", "fast", "--quiet"]
    assert main(["build", "--checkpoint", checkpoint, "--output", str(output), *built]) == 0
    bundle, frame = Bundle.load(output), read_image(min(photographs.iterdir()))
    with Detector.load(bundle, "onnxruntime", "fp32") as reference:
        wanted = reference.detect(frame, mesh=True)
    assert wanted.vertices is not None and len(wanted)
    size = np.sqrt(np.prod(wanted.boxes[:, 2:] - wanted.boxes[:, :2], axis=1))
    eyes = wanted.vertices[:, (33, 263), :2].mean(axis=1) - wanted.landmarks[:, :2].mean(axis=1)
    assert (np.linalg.norm(eyes, axis=1) < 0.15 * size).all()
    for backend, precision, most in (("openvino", "fp32", 1e-3), ("tflite", "fp32", 1e-3), ("openvino", "int8", 0.05)):
        with Detector.load(bundle, backend, precision) as detector:
            found = detector.detect(frame, mesh=True)
        assert found.vertices is not None and len(found) == len(wanted)
        assert (np.linalg.norm(found.vertices - wanted.vertices, axis=2).mean(axis=1) < most * size).all(), backend
