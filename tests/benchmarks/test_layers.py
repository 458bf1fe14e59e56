"""Layers of an ONNX graph with the operators of residual networks: found, isolated, and freed of channel factors."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from retinaface_edge.benchmarks.drift.layer_metrics import LayerErrors, channel_gains
from retinaface_edge.benchmarks.drift.layer_values import IsolatedLayers, layer_values
from retinaface_edge.benchmarks.drift.layers import read_layers
from retinaface_edge.benchmarks.inference.network_under_test import REFERENCE, NetworkUnderTest, digest_of
from retinaface_edge.benchmarks.inference.open_picture import OpenPicture
from retinaface_edge.runtime import Spec

SPEC = Spec(64, 64)
CHANNELS = 8
FACTORS = np.array([1, 2, 4, 0.5, 1, 8, 0.25, 2], np.float32)


def weights() -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(3)
    shapes = {
        "stem": (CHANNELS, 3, 3, 3),
        "dilated": (CHANNELS, CHANNELS, 3, 3),
        "grouped": (CHANNELS, CHANNELS // 2, 3, 3),
        "depthwise": (CHANNELS, 1, 3, 3),
        "head": (4, CHANNELS, 1, 1),
    }
    return {f"{name}.weight": random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def network(constants: dict[str, NDArray[np.float32]], name: str = "onnxruntime fp32") -> NetworkUnderTest:
    """The stem and a pool; a residual block of a dilated and a grouped convolution; a depthwise one; a head."""
    conv: dict[str, tuple[str, dict[str, Any]]] = {
        "stem": ("picture", {"pads": [1] * 4}),
        "dilated": ("pool", {"pads": [2] * 4, "dilations": [2, 2]}),
        "grouped": ("dilated.activation", {"pads": [1] * 4, "group": 2}),
        "depthwise": ("sum.activation", {"pads": [1] * 4, "group": CHANNELS}),
        "head": ("depthwise", {}),
    }

    def convolution(key: str) -> onnx.NodeProto:
        source, attributes = conv[key]
        kernel = list(constants[f"{key}.weight"].shape[2:])
        return helper.make_node("Conv", [source, f"{key}.weight"], [key], key, kernel_shape=kernel, **attributes)

    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["floats", "mean"], ["centred"], "centre"),
        helper.make_node("Transpose", ["centred"], ["picture"], "first", perm=[0, 3, 1, 2]),
        convolution("stem"),
        helper.make_node("Relu", ["stem"], ["stem.activation"], "stem.relu"),
        helper.make_node("MaxPool", ["stem.activation"], ["pool"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        convolution("dilated"),
        helper.make_node("Clip", ["dilated", "zero"], ["dilated.activation"], "dilated.clip"),
        convolution("grouped"),
        helper.make_node("Add", ["grouped", "pool"], ["sum"], "sum"),
        helper.make_node("Clip", ["sum", "zero"], ["sum.activation"], "sum.clip"),
        helper.make_node("Sigmoid", ["sum"], ["aside"], "aside"),
        convolution("depthwise"),
        convolution("head"),
        helper.make_node("Transpose", ["head"], ["score_8"], "last", perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["aside"], ["feature_8"], "beside", perm=[0, 2, 3, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, SPEC.input_shape)],
        [
            helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, 32, 32, channels])
            for output, channels in (("score_8", 4), ("feature_8", CHANNELS))
        ],
        [
            numpy_helper.from_array(np.asarray(array, np.float32), key)
            for key, array in {**constants, "mean": 110.0, "zero": 0.0}.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    return NetworkUnderTest(name, SPEC, (content,), digest_of(content.hex()), REFERENCE)


@pytest.fixture
def frame() -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (64, 64, 3), np.uint8)


def test_operators_of_residual_networks_are_layers() -> None:
    layers = {layer.name: layer for layer in read_layers(network(weights()))}
    assert {name: layer.kind for name, layer in layers.items()} == {
        "stem": "conv 3x3",
        "pool": "maxpool",
        "dilated": "conv 3x3, dilation 2",
        "grouped": "grouped conv 3x3",
        "sum": "add",
        "sum.clip": "clip",  # the sum is read by another, too, so the activation is no part of it
        "aside": "sigmoid",
        "depthwise": "depthwise 3x3",
        "head": "conv 1x1",
    }
    assert layers["dilated"].value == "dilated.activation" and layers["dilated"].reads == ("pool",)
    assert layers["sum"].reads == ("grouped", "pool") and layers["stem"].reads == ()
    assert [name for name, layer in layers.items() if layer.is_output] == ["aside", "head"]


def test_a_layer_on_its_own_gives_what_it_gives_in_the_network(frame: NDArray[np.uint8]) -> None:
    reference = network(weights())
    layers = read_layers(reference)
    found = layer_values(reference, layers).run(frame[None])
    for name, expected in IsolatedLayers(reference, layers).run(frame[None], found).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-5)


def equalised(constants: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """The same network with every channel between `dilated` and `grouped` multiplied by a factor of its own."""
    by_group = FACTORS.reshape(2, CHANNELS // 2).repeat(CHANNELS // 2, axis=0)
    return {
        **constants,
        "dilated.weight": constants["dilated.weight"] * FACTORS[:, None, None, None],
        "grouped.weight": constants["grouped.weight"] / by_group[:, :, None, None],
    }


def test_factors_of_equalised_channels_are_read_from_the_weights(frame: NDArray[np.uint8]) -> None:
    reference, changed = network(weights()), network(equalised(weights()), "onnxruntime int8")
    layers = read_layers(reference)
    gains = channel_gains(layers, layer_values(reference, layers), layer_values(changed, layers))
    np.testing.assert_allclose(gains["dilated.activation"], FACTORS, rtol=1e-5)
    np.testing.assert_allclose(gains["grouped"], 1.0, rtol=1e-5)
    errors = LayerErrors(reference, changed)
    powers = errors.value(errors.measure(OpenPicture(frame)))
    assert (powers.introduced <= 1e-10 * powers.signal).all() and (powers.accumulated <= 1e-10 * powers.signal).all()


def test_an_error_is_introduced_where_it_is_and_accumulates_after(frame: NDArray[np.uint8]) -> None:
    broken = weights()
    broken["grouped.weight"][0] *= -1.0
    errors = LayerErrors(network(weights()), network(broken, "onnxruntime int8"))
    powers = errors.value(errors.measure(OpenPicture(frame)))
    names = [layer.name for layer in read_layers(network(weights()))]
    wrong = {
        name
        for name, error, signal in zip(names, powers.introduced, powers.signal, strict=True)
        if error > 1e-6 * signal
    }
    after = {
        name
        for name, error, signal in zip(names, powers.accumulated, powers.signal, strict=True)
        if error > 1e-6 * signal
    }
    assert wrong == {"grouped"}
    assert after == {"grouped", "sum", "sum.clip", "aside", "depthwise", "head"}
