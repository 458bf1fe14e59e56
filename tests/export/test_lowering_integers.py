"""QDQ graphs of one layer: int8 TFLite computes what ONNX Runtime does, within a step where rounding differs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from oracles.backends import KERNELS, NHWC, between_transposes, by_litert, by_onnxruntime, names, node

from retinaface_edge.export.lower.tflite import lower_tflite
from retinaface_edge.export.lower.tflite_schema import Graph
from retinaface_edge.runtime.ops.postprocess import QuantParams

STEP = 1 / 32


def pair(value: str, source: str, scale: str = "step") -> list[onnx.NodeProto]:
    """`source` quantised and dequantised as `value`."""
    return [
        node("QuantizeLinear", [source, scale, "zero"], f"{value}.integers"),
        node("DequantizeLinear", [f"{value}.integers", scale, "zero"], value),
    ]


CONSTANTS = {"step": np.float32(STEP), "double": np.float32(2 * STEP), "odd": np.float32(0.07), "zero": np.uint8(128)}


def assert_within_a_step(
    nodes: list[onnx.NodeProto], constants: dict[str, Any], step: float, opset: int = 18
) -> tuple[Graph, float]:
    """That every kernel set is at most a step off; gives the graph, and the share of results that are equal."""
    used = {name for entry in nodes for name in entry.input}
    given = {name: value for name, value in {**CONSTANTS, **constants}.items() if name in used}
    model = between_transposes(nodes, (8, 6, 4), given, opset)
    image = np.random.default_rng(0).normal(size=(1, 8, 6, 4)).astype(np.float32)
    expected, lowered = by_onnxruntime(model, image)[0], lower_tflite(model, {})
    assert np.ptp(expected) > 10 * step
    equal = 1.0
    for kernels in KERNELS:
        integers = by_litert(lowered, image, kernels)
        assert integers.dtype == np.int8
        error = np.abs(integers * step - expected)
        assert error.max() <= 1.001 * step
        equal = min(equal, float(np.mean(error < step / 2)))
    return lowered, equal


def integer_convolution(seed: int = 0) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
    """A convolution of "a" by integer weights: its nodes and constants."""
    random = np.random.default_rng(seed)
    constants = {
        "w.integers": random.integers(-127, 128, (4, 4, 1, 1)).astype(np.int8),
        "w.scale": np.full(4, 0.005, np.float32),
        "none": np.zeros(4, np.int8),
        "b.integers": random.integers(-999, 999, 4).astype(np.int32),
        "b.scale": np.full(4, np.float32(0.005) * np.float32(STEP), np.float32),
        "none.b": np.zeros(4, np.int32),
    }
    nodes = [
        node("DequantizeLinear", ["w.integers", "w.scale", "none"], "w", axis=0),
        node("DequantizeLinear", ["b.integers", "b.scale", "none.b"], "b", axis=0),
        node("Conv", ["a", "w", "b"]),
    ]
    return nodes, constants


@pytest.mark.parametrize("factor", [np.float32(0.37), np.array([0.1, 0.5, 1.0, 2.0], np.float32).reshape(4, 1, 1)])
@pytest.mark.parametrize("kind", ["Mul", "Div"])
def test_a_positive_factor_changes_the_scales_of_integer_weights_alone(kind: str, factor: Any) -> None:
    nodes, constants = integer_convolution()
    nodes = [*pair("a", "x"), *nodes, node(kind, ["conv", "factor"], "scaled"), *pair("out_", "scaled", "odd")]
    lowered, equal = assert_within_a_step(nodes, {**constants, "factor": factor}, 0.07)
    assert names(lowered) == ["QUANTIZE", "CONV_2D"] and equal > 0.99
    (weights,) = (tensor for tensor in lowered.tensors if tensor.name == "w")
    np.testing.assert_array_equal(weights.data, constants["w.integers"].transpose(0, 2, 3, 1))


def test_a_negative_factor_of_integers_is_a_multiplication_of_floats() -> None:
    nodes, constants = integer_convolution()
    nodes = [*pair("a", "x"), *nodes, *pair("c", "conv", "odd"), node("Mul", ["c", "factor"], "scaled")]
    nodes += pair("out_", "scaled", "odd")
    lowered, _equal = assert_within_a_step(nodes, {**constants, "factor": np.float32(-0.5)}, 0.07)
    assert names(lowered) == ["QUANTIZE", "CONV_2D", "DEQUANTIZE", "MUL", "QUANTIZE"]


@pytest.mark.parametrize(
    ("kind", "operator", "least"), [("MaxPool", "MAX_POOL_2D", 1.0), ("AveragePool", "AVERAGE_POOL_2D", 0.3)]
)
def test_a_pool_of_integers_keeps_their_scale(kind: str, operator: str, least: float) -> None:
    pool = node(kind, ["a"], "pool", kernel_shape=[2, 2], strides=[2, 2])
    lowered, equal = assert_within_a_step([*pair("a", "x"), pool], {}, STEP)
    assert names(lowered) == ["QUANTIZE", operator]
    assert equal >= least


def test_integers_on_another_scale_are_quantised_anew() -> None:
    """A pool keeps the scale of what it reads; the graph may want another behind it."""
    pool = node("MaxPool", ["a"], "pool", kernel_shape=[2, 2])
    lowered, _equal = assert_within_a_step([*pair("a", "x"), pool, *pair("out_", "pool", "double")], {}, 2 * STEP)
    assert names(lowered) == ["QUANTIZE", "MAX_POOL_2D", "QUANTIZE"]
    assert [t.quantisation.scales for t in lowered.tensors if t.quantisation] == [(STEP,), (STEP,), (2 * STEP,)]


@pytest.mark.parametrize("kind", ["MaxPool", "LeakyRelu", "Transpose"])
def test_what_reads_the_image_sees_its_mean_subtracted(kind: str) -> None:
    """Its integers are pixels: an operator that took them as they are would be off by the mean."""
    attributes: dict[str, dict[str, Any]] = {
        "MaxPool": {"kernel_shape": [2, 2]},
        "LeakyRelu": {"alpha": 0.1},
        "Transpose": {"perm": [0, 3, 2, 1]},
    }
    nodes = [
        node("DequantizeLinear", ["image", "ones", "mean"], "centred", axis=3),
        node("Transpose", ["centred"], "nchw", perm=[0, 3, 1, 2]),
        node(kind, ["nchw"], "value", **attributes[kind]),
        *pair("quantised", "value", "coarse"),
        node("Transpose", ["quantised"], "out", **NHWC),
    ]
    constants = {"ones": np.ones(3, np.float32), "mean": np.array([104, 117, 123], np.uint8), "zero": np.uint8(128)}
    graph = helper.make_graph(
        nodes,
        "image",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 6, 8, 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in {**constants, "coarse": np.float32(2.0)}.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    image = np.random.default_rng(0).integers(0, 256, (1, 6, 8, 3), np.uint8)
    for kernels in KERNELS:
        got = by_litert(lower_tflite(model, {}), image, kernels).astype(float) * 2.0
        if kind == "Transpose":
            got = got.reshape(by_onnxruntime(model, image)[0].shape)
        assert np.abs(got - by_onnxruntime(model, image)[0]).max() <= 2.0


def test_group_normalisation_of_a_quantised_graph_stays_float() -> None:
    """No scale stands for statistics of the picture at hand: integers end before it and begin after it."""
    random = np.random.default_rng(0)
    constants = {
        "step": np.float32(1 / 32), "zero": np.uint8(128), "after": np.float32(1 / 16),
        "scale": np.ones(4, np.float32), "shift": np.zeros(4, np.float32),
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", ["x", "step", "zero"], "q"),
        node("DequantizeLinear", ["q", "step", "zero"], "dq"),
        node("MaxPool", ["dq"], kernel_shape=[1, 1]),
        node("GroupNormalization", ["maxpool", "scale", "shift"], "normal", num_groups=2),
        node("QuantizeLinear", ["normal", "after", "zero"], "q2"),
        node("DequantizeLinear", ["q2", "after", "zero"], "dq2"),
    ]
    model = between_transposes(nodes, (8, 6, 4), constants, opset=21)
    image = random.normal(size=(1, 8, 6, 4)).astype(np.float32)
    expected = by_onnxruntime(model, image)[0]
    lowered = lower_tflite(model, {"x": QuantParams(1 / 32, 128)})
    assert names(lowered)[:3] == ["QUANTIZE", "MAX_POOL_2D", "DEQUANTIZE"] and names(lowered)[-1] == "QUANTIZE"
    assert lowered.float_operators > 8
    for kernels in KERNELS:
        got = by_litert(lowered, image, kernels).astype(float) / 16.0
        assert np.abs(got - expected).max() <= 1 / 16
