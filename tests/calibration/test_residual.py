"""INT8 of residual networks: sums, poolings and bounded activations as integers that every kernel computes alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from oracles.kernels import LITERT_KERNELS
from oracles.residual import ResidualDetector

from retinaface_edge.calibration import calibrate as calibrate_module
from retinaface_edge.calibration.calibrate import MOVES, Calibration, calibrate
from retinaface_edge.calibration.dataset.image_set import ImageSet, image_set
from retinaface_edge.calibration.dataset.synthetic_scenes import scenes
from retinaface_edge.calibration.equalisation import equalise
from retinaface_edge.calibration.graph.session import run
from retinaface_edge.calibration.layer_report import layer_fits
from retinaface_edge.calibration.observers import observe
from retinaface_edge.calibration.qdq import quantise
from retinaface_edge.calibration.recipe import read_recipe
from retinaface_edge.export.graph.export import to_onnx
from retinaface_edge.export.lower.openvino import lower_openvino
from retinaface_edge.export.lower.tflite import lower_tflite
from retinaface_edge.export.lower.tflite_schema import Graph, serialise
from retinaface_edge.runtime import Spec, backends
from retinaface_edge.runtime.ops.postprocess import QuantParams

SPEC = Spec(160, 128)


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    return to_onnx(ResidualDetector(SPEC).eval().requires_grad_(False), SPEC)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return image_set(SPEC, scenes(6), "scenes")


@pytest.fixture(scope="module")
def calibrated(network: onnx.ModelProto, images: ImageSet) -> Calibration:
    return calibrate(network, SPEC, images, replace(read_recipe("fast"), rounding="hessian"))


@pytest.fixture(scope="module")
def quantised(calibrated: Calibration) -> onnx.ModelProto:
    return quantise(calibrated, SPEC)


def noise(got: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """The worst output's signal-to-noise ratio in dB."""
    return min(10 * np.log10(np.mean(w**2) / np.mean((g - w) ** 2)) for g, w in zip(got, wanted, strict=True))


def by_kernels(graph: Graph, image: np.ndarray, kernels: str) -> list[np.ndarray]:
    interpreter = Interpreter(model_content=serialise(graph), experimental_op_resolver_type=LITERT_KERNELS[kernels])
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return [interpreter.get_tensor(entry["index"]) for entry in interpreter.get_output_details()]


def origins(model: onnx.ModelProto, name: str) -> str:
    producers = {node.output[0]: node for node in model.graph.node}
    while name in producers and producers[name].op_type in MOVES:
        name = producers[name].input[0]
    return name


def test_the_network_has_what_residual_networks_have(network: onnx.ModelProto) -> None:
    kinds = [node.op_type for node in network.graph.node]
    assert {"Add", "Clip", "MaxPool", "Relu"} < set(kinds)
    assert not {"AveragePool", "Constant", "Div"} & set(kinds), "folded by the passes"
    shortcut = next(node for node in network.graph.node if node.name == "stages.0.1.shortcut")
    attributes = {entry.name: list(entry.ints) for entry in shortcut.attribute}
    assert attributes["kernel_shape"] == attributes["strides"] == [2, 2]


def test_what_a_sum_reads_and_gives_is_on_a_grid(calibrated: Calibration) -> None:
    model = calibrated.model
    readers = {name: node for node in model.graph.node for name in node.input}
    sums = [node for node in model.graph.node if node.op_type == "Add"]
    assert len(sums) == 9
    for node in sums:
        activation = readers[node.output[0]]
        fused = activation.op_type in ("Relu", "Clip")
        assert {origins(model, name) for name in node.input} <= set(calibrated.ranges)
        assert (activation.output[0] if fused else node.output[0]) in calibrated.ranges
        assert not fused or node.output[0] not in calibrated.ranges, "no backend holds it"


def test_every_layer_is_integers(calibrated: Calibration, quantised: onnx.ModelProto) -> None:
    assert lower_tflite(quantised, calibrated.quant_params).float_operators == 0
    producers = {node.output[0]: node for node in quantised.graph.node}
    for node in quantised.graph.node:
        if node.op_type in ("Conv", "Add"):
            for name in node.input:
                assert producers[origins(quantised, name)].op_type == "DequantizeLinear", node.name
    assert {row.kept for row in layer_fits(calibrated, quantised)} == {"int8"}


def test_kernels_agree_to_the_bit_sums_included(
    calibrated: Calibration, quantised: onnx.ModelProto, images: ImageSet
) -> None:
    graph = lower_tflite(quantised, calibrated.quant_params)
    for image in images.inputs[:3]:
        for ours, theirs in zip(*(by_kernels(graph, image, k) for k in ("xnnpack", "reference")), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_int8_is_near_fp32_on_every_backend(
    calibrated: Calibration, quantised: onnx.ModelProto, network: onnx.ModelProto, images: ImageSet
) -> None:
    """TFLite's outputs are integers on the range of candidate anchors, and lose a little more by that."""
    image = images.inputs[0]
    expected = run(network, SPEC, image)
    assert noise(run(quantised, SPEC, image), expected) > 30
    for name, files in (
        ("openvino", list(lower_openvino(quantised, SPEC))),
        ("tflite", [serialise(lower_tflite(quantised, calibrated.quant_params))]),
    ):
        outputs = backends.load(name, SPEC, files, 1)
        got = [
            output if quant is None else (output.astype(np.float32) - quant.zero_point) * quant.scale
            for output, quant in zip(outputs.run(image), outputs.quant_params, strict=True)
        ]
        assert noise(got, expected) > 25, name


def test_fp32_is_lowered_exactly(network: onnx.ModelProto, images: ImageSet) -> None:
    image = images.inputs[0]
    expected = run(network, SPEC, image)
    openvino = backends.load("openvino", SPEC, list(lower_openvino(network, SPEC)), 1)
    tflite = backends.load("tflite", SPEC, [serialise(lower_tflite(network, {}))], 1)
    assert noise(list(openvino.run(image)), expected) > 100
    assert noise(list(tflite.run(image)), expected) > 100


def test_equalisation_keeps_off_sums_and_bounded_activations(network: onnx.ModelProto, images: ImageSet) -> None:
    kinds = ("Conv", "Relu", "Clip", "Add")
    watched = [node.output[0] for node in network.graph.node if node.op_type in kinds]
    tensors = observe(network, SPEC, watched, images).tensors
    equalised, scaled = equalise(network, tensors)
    changed = {name for name in tensors if not np.array_equal(tensors[name].high, scaled[name].high)}
    assert "stages.0.0.conv1.activation" in changed
    bounded = {node.output[0] for node in network.graph.node if node.op_type == "Clip"}
    sums = {origins(network, name) for node in network.graph.node if node.op_type == "Add" for name in node.input}
    assert bounded and sums
    assert not changed & (bounded | sums)
    image = images.inputs[0]
    assert noise(run(equalised, SPEC, image), run(network, SPEC, image)) > 90


def test_scales_of_sums_are_chosen_for_agreement(
    calibrated: Calibration, network: onnx.ModelProto, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that choice the ranges are those of the estimator; with it they are a few per mille wider at most."""
    monkeypatch.setattr(calibrate_module, "agreeing_sum", lambda first, second, result: result)
    plain = calibrate(network, SPEC, images, calibrated.recipe)
    before: Mapping[str, QuantParams] = plain.quant_params
    moved = {name for name, quant in calibrated.quant_params.items() if quant != before[name]}
    sums = {node.output[0] for node in network.graph.node if node.op_type == "Add"}
    activated = {node.output[0] for node in network.graph.node if node.input[0] in sums}
    assert moved <= sums | activated
    for name in moved:
        assert calibrated.quant_params[name].zero_point == before[name].zero_point
        assert 1.0 < calibrated.quant_params[name].scale / before[name].scale < 1.02
