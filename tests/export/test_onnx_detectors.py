"""SCRFD and YuNet from ONNX files: known by their graph, and computing what the file does, for any input size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from oracles.scrfd import SIZES, export, small, trained_like

from retinaface_edge.export.checkpoints.detectors.onnx_detector import OnnxDetector
from retinaface_edge.export.checkpoints.detectors.scrfd import read_scrfd
from retinaface_edge.export.checkpoints.detectors.yunet import read_yunet
from retinaface_edge.export.graph.detector_graph import GraphError, read_detector_graph
from retinaface_edge.runtime.spec import Colour, Spec


def read(content: bytes) -> OnnxDetector:
    graph = read_detector_graph(content)
    detector = read_yunet(graph) or read_scrfd(graph)
    assert detector is not None
    return detector


def differences(path: Path, detector: OnnxDetector, width: int, height: int) -> list[float]:
    """Of every output in the form of the contract to the file's own, relative to the largest value."""
    spec = detector.spec(width, height)
    model = detector.graph(spec, 18)
    image = np.random.default_rng(0).integers(0, 256, spec.input_shape, np.uint8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    ours = session.run([output.name for output in spec.outputs], {"image": image})
    pixels = (image[..., ::-1] if spec.colour is Colour.RGB else image).astype(np.float32)
    pixels = (pixels - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    original = onnxruntime.InferenceSession(str(path))
    names = [detector.outputs[output.head, output.stride].name for output in spec.outputs]
    blob = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    theirs = original.run(names, {original.get_inputs()[0].name: blob})
    found = []
    for output, mine, other in zip(spec.outputs, ours, theirs, strict=True):
        value = 1 / (1 + np.exp(-mine)) if output.head in ("score", "object") else mine
        found.append(float(np.abs(value.reshape(other.shape) - other).max() / max(np.abs(other).max(), 1.0)))
    return found


@pytest.mark.parametrize(
    ("file", "family", "size"),
    [
        ("yunet_n_dynamic.onnx", "YuNet", (640, 480)),
        ("yunet_n_640_640.onnx", "YuNet", (640, 640)),
        ("scrfd_500m_bnkps.onnx", "SCRFD", (640, 480)),
        ("scrfd_2.5g_kps.onnx", "SCRFD", (640, 640)),
    ],
)
def test_published_files_compute_what_they_did(shared: Path, file: str, family: str, size: tuple[int, int]) -> None:
    path = shared / "peers" / file
    detector = read(path.read_bytes())
    assert detector.family == family
    assert max(differences(path, detector, *size)) < 1e-5


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("name", SIZES)
def test_every_published_size_of_scrfd_is_read(name: str, dynamic: bool, tmp_path: Path) -> None:
    path = export(trained_like(small(SIZES[name])), tmp_path / "scrfd.onnx", dynamic)
    detector = read(path.read_bytes())
    assert (detector.family, detector.spec(160, 128).landmarks) == ("SCRFD", 5 if SIZES[name].landmarks else 0)
    assert max(differences(path, detector, 160, 128)) < 1e-5


@pytest.mark.parametrize("name", ["2.5G", "34G"])
def test_a_file_of_one_input_size_is_given_another(name: str, tmp_path: Path) -> None:
    """By the same weights exported for any size, which is another graph."""
    model = trained_like(small(SIZES[name]))
    fixed = read(export(model, tmp_path / "fixed.onnx", dynamic=False, size=(64, 64)).read_bytes())
    assert max(differences(export(model, tmp_path / "any.onnx", dynamic=True), fixed, 160, 96)) < 1e-5


def test_a_frozen_file_of_yunet_is_the_one_of_any_size(shared: Path) -> None:
    frozen = read((shared / "peers" / "yunet_n_640_640.onnx").read_bytes())
    assert max(differences(shared / "peers" / "yunet_n_dynamic.onnx", frozen, 320, 256)) < 1e-5


def test_the_contract_says_how_each_family_codes_its_faces(shared: Path) -> None:
    yunet = read((shared / "peers" / "yunet_n_dynamic.onnx").read_bytes()).spec(320, 256)
    assert [head.name for head in yunet.heads] == ["score", "box", "landmark", "object"]
    assert yunet.anchor_sizes == ((8,), (16,), (32,))
    scrfd = read((shared / "peers" / "scrfd_500m_bnkps.onnx").read_bytes()).spec(320, 256)
    assert (scrfd.mean, scrfd.std, scrfd.padding) == ((127.5,) * 3, (128.0,) * 3, (0, 0, 0))
    for spec in (yunet, scrfd):
        assert Spec.from_json(spec.to_json()) == spec
        assert replace(spec, width=640).height == 256


def tiny(*ends: onnx.NodeProto, outputs: tuple[str, ...] = ("out",)) -> bytes:
    """A convolution of an image, and what follows it."""
    weights = np.ones((2, 3, 1, 1), np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["conv"], "conv"), *ends],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no protobuf at all", "cannot be read as ONNX|holds no graph"),
        (b"", "holds no graph"),
        (tiny(helper.make_node("Softmax", ["conv"], ["out"], "end")), "its output out ends in Softmax"),
        (tiny(helper.make_node("Identity", ["image"], ["out"], "end")), "its output out is made by no convolution"),
        (
            tiny(
                helper.make_node("Constant", [], ["s"], value=onnx.numpy_helper.from_array(np.float32(1), "s")),
                helper.make_node("Constant", [], ["z"], value=onnx.numpy_helper.from_array(np.uint8(1), "z")),
                helper.make_node("QuantizeLinear", ["conv", "s", "z"], ["q"]),
                helper.make_node("DequantizeLinear", ["q", "s", "z"], ["out"]),
            ),
            "quantised already .DequantizeLinear, QuantizeLinear.; give the FP32 model",
        ),
    ],
)
def test_what_holds_no_detector_is_said_in_one_line(content: bytes, message: str) -> None:
    with pytest.raises(GraphError, match=message) as caught:
        read_detector_graph(content)
    assert "\n" not in str(caught.value)


def test_another_detector_is_no_scrfd_and_no_yunet() -> None:
    graph = read_detector_graph(tiny(helper.make_node("Sigmoid", ["conv"], ["out"], "end")))
    assert read_scrfd(graph) is None
    assert read_yunet(graph) is None
