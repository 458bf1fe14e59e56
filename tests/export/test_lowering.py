"""Lowering: other runtimes compute what ONNX Runtime computes for the same graph."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from oracles.networks import NETWORKS, network

from retinaface_edge.calibration.calibrate import Calibration
from retinaface_edge.export.graph.export import run
from retinaface_edge.export.lower.openvino import lower_openvino
from retinaface_edge.export.lower.tflite import LoweringError, lower_tflite
from retinaface_edge.export.lower.tflite_schema import serialise
from retinaface_edge.runtime import Spec, backends


@pytest.fixture(scope="module")
def tflite_int8(int8: onnx.ModelProto, calibration: Calibration) -> bytes:
    return serialise(lower_tflite(int8, calibration.quant_params))


def test_fp32_backends_agree_on_raw_outputs(fp32: onnx.ModelProto, spec: Spec, photographs: list[np.ndarray]) -> None:
    networks = {
        "openvino": backends.load("openvino", spec, lower_openvino(fp32, spec), 1),
        "tflite": backends.load("tflite", spec, [serialise(lower_tflite(fp32, {}))], 1),
        "onnxruntime": backends.load("onnxruntime", spec, [fp32.SerializeToString()], 1),
    }
    for image in photographs:
        expected = run(fp32, spec, image)
        for name, loaded in networks.items():
            for output, ours, theirs in zip(spec.outputs, loaded.run(image), expected, strict=True):
                assert np.abs(ours - theirs).max() <= 1e-3, (name, output.name)


def test_int8_outputs_stay_near_the_qdq_graph(
    int8: onnx.ModelProto, tflite_int8: bytes, spec: Spec, photographs: list[np.ndarray]
) -> None:
    """At the anchors that matter, and within a few steps of the outputs' own grids."""
    network = backends.load("tflite", spec, [tflite_int8], 1)
    openvino = backends.load("openvino", spec, lower_openvino(int8, spec), 1)
    checked = 0
    for image in photographs:
        expected = run(int8, spec, image)
        real = [
            (o.astype(float) - g.zero_point) * g.scale
            for o, g in zip(network.run(image), network.quant_params, strict=True)
        ]
        other = [np.array(output, float) for output in openvino.run(image)]
        for level in range(3):
            near = expected[level].reshape(-1) > 0.0
            for head, channels, bound in ((0, 1, 1.0), (3, 4, 0.6), (6, 10, 1.0)):
                wanted = expected[head + level].reshape(-1, channels)[near]
                for got in (real, other):
                    assert np.abs(got[head + level].reshape(-1, channels)[near] - wanted).max(initial=0.0) < bound
            checked += int(near.sum())
    assert checked > 20


def read(content: bytes) -> schema.ModelT:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))


def operators(content: bytes) -> Counter[str]:
    model = read(content)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    return Counter(names[model.operatorCodes[op.opcodeIndex].builtinCode] for op in model.subgraphs[0].operators)


def test_tflite_has_no_transpose_and_pads_only_where_it_must(
    fp32: onnx.ModelProto, tflite_int8: bytes, spec: Spec
) -> None:
    floats = operators(serialise(lower_tflite(fp32, {})))
    strided = sum(
        1
        for node in fp32.graph.node
        for attribute in node.attribute
        if attribute.name == "strides" and list(attribute.ints) == [2, 2]
    )
    assert floats["TRANSPOSE"] == 0
    assert strided == 5
    integers = operators(tflite_int8)
    assert integers["TRANSPOSE"] == 0
    # The image is padded with its mean colour, by concatenation.
    assert floats["PAD"] == integers["PAD"] == strided - 1
    assert integers["LEAKY_RELU"] == 38


def test_int8_tflite_has_no_float_between_input_and_outputs(
    int8: onnx.ModelProto, calibration: Calibration, tflite_int8: bytes
) -> None:
    tensors = read(tflite_int8).subgraphs[0].tensors
    assert not [tensor.name for tensor in tensors if tensor.type == schema.TensorType.FLOAT32]
    assert lower_tflite(int8, calibration.quant_params).float_operators == 0
    assert not {"DEQUANTIZE", "CAST"} & operators(tflite_int8).keys()


def test_int8_tflite_has_the_qdq_graphs_grids(int8: onnx.ModelProto, tflite_int8: bytes) -> None:
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in int8.graph.initializer}
    tensors = {tensor.name.decode(): tensor.quantization for tensor in read(tflite_int8).subgraphs[0].tensors}
    activations = [node.input for node in int8.graph.node if node.op_type == "QuantizeLinear"]
    assert len(activations) == 49
    for name, scale, zero_point in activations:
        assert tensors[name].scale[0] == stored[scale]
        assert tensors[name].zeroPoint[0] == int(stored[zero_point]) - 128


def test_int8_biases_are_on_the_grid_that_tflite_gives_them(tflite_int8: bytes) -> None:
    """Zero point 0, and in each channel the input's scale times the weights' (TFLite's quantisation specification)."""
    model, kernels = read(tflite_int8), 0
    subgraph, kinds = model.subgraphs[0], (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D)
    for operator in subgraph.operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode not in kinds:
            continue
        source, weights, bias = (subgraph.tensors[index].quantization for index in operator.inputs)
        np.testing.assert_allclose(bias.scale, source.scale * weights.scale, rtol=1e-6)
        assert not np.any(bias.zeroPoint) and not np.any(weights.zeroPoint)
        kernels += 1
    assert kernels > 30


def test_float_layers_of_a_mixed_graph_are_counted(int8: onnx.ModelProto, calibration: Calibration) -> None:
    """A QDQ graph in which one activation is not quantised has float operators around it."""
    mixed = onnx.ModelProto()
    mixed.CopyFrom(int8)
    value = "context.2.conv7_2.activation"
    pair = [node for node in mixed.graph.node if node.name in (f"{value}.quantise", f"{value}.dequantise")]
    for node in pair:
        mixed.graph.node.remove(node)
    kernels = [node.name for node in mixed.graph.node if f"{value}.quantised" in node.input]
    assert len(pair) == 2
    assert kernels == ["context.2.conv7_3"]
    for node in list(mixed.graph.node):
        if node.name in ("context.2.conv7_3.weight.dequantise", "context.2.conv7_3.bias.dequantise"):
            mixed.graph.node.remove(node)
            tensor = next(t for t in calibration.model.graph.initializer if t.name == node.output[0])
            mixed.graph.initializer.append(tensor)
        for index, name in enumerate(node.input):
            if name == f"{value}.quantised":
                node.input[index] = value
    quant_params = {
        name: quant for name, quant in calibration.quant_params.items() if name not in (value, "context.2.conv7_2")
    }
    with pytest.raises(LoweringError, match=r"context\.2\.conv7_2.*no quantisation parameters"):
        lower_tflite(mixed, quant_params)
    quant_params["context.2.conv7_2"] = calibration.quant_params["context.2.conv7_2"]
    assert lower_tflite(mixed, quant_params).float_operators >= 3
    interpreter = Interpreter(model_content=serialise(lower_tflite(mixed, quant_params)))
    interpreter.allocate_tensors()
    interpreter.invoke()


def test_both_lowerings_give_the_same_bytes_twice(
    fp32: onnx.ModelProto, int8: onnx.ModelProto, calibration: Calibration, tflite_int8: bytes, spec: Spec
) -> None:
    assert serialise(lower_tflite(int8, calibration.quant_params)) == tflite_int8
    assert serialise(lower_tflite(fp32, {})) == serialise(lower_tflite(fp32, {}))
    assert lower_openvino(fp32, spec) == lower_openvino(fp32, spec)
    assert lower_openvino(int8, spec) == lower_openvino(int8, spec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"op_type": "Softplus"}, "has type Softplus, which has no TFLite lowering"),
        ({"dilations": [0, 2]}, "of type Conv is dilated"),
        ({"group": 2}, "of type Conv has 2 groups"),
    ],
)
def test_what_cannot_be_lowered_is_named(change: dict[str, object], message: str) -> None:
    model = network(channels=4, kernel=3, stride=1, depthwise=False, size=(8, 8), seed=0)
    node = next(node for node in model.graph.node if node.op_type == ("LeakyRelu" if "op_type" in change else "Conv"))
    if "op_type" in change:
        node.op_type = str(change["op_type"])
    else:
        for key, value in change.items():
            kept = [attribute for attribute in node.attribute if attribute.name != key]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute(key, value)])
    with pytest.raises(LoweringError, match=f"node '{node.name}'.*{message}|node '{node.name}' {message}"):
        lower_tflite(model, {})


@settings(max_examples=60)
@given(**NETWORKS, factors=st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_small_graphs_of_any_shape_are_lowered_exactly(
    channels: int,
    kernel: int,
    stride: int,
    depthwise: bool,
    size: tuple[int, int],
    seed: int,
    factors: tuple[int, int],
) -> None:
    """Odd sizes, strides and kernels: padding must be where ONNX has it."""
    assert_exact(network(channels, kernel, stride, depthwise, size, seed, factors), size, seed)


def assert_exact(model: onnx.ModelProto, size: tuple[int, int], seed: int = 0) -> None:
    """That LiteRT computes what ONNX Runtime does, and that the file's shapes are those that LiteRT finds by itself."""
    image = np.random.default_rng(seed).integers(0, 256, (1, *size, 3), np.uint8)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"image": image})[0]
    lowered = lower_tflite(model, {})
    content = serialise(lowered)
    for resolver in (OpResolverType.AUTO, OpResolverType.BUILTIN_REF):
        interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        assert np.abs(got - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
    found = {detail["name"]: tuple(detail["shape"]) for detail in interpreter.get_tensor_details()}
    assert {tensor.name: found[tensor.name] for tensor in lowered.tensors} == {t.name: t.shape for t in lowered.tensors}


@pytest.mark.parametrize("size", [(8, 6), (7, 6), (8, 7)])
@pytest.mark.parametrize("integers", [False, True])
def test_a_layer_on_the_image_of_a_quantised_graph_sees_centred_pixels(size: tuple[int, int], integers: bool) -> None:
    """Their zero points differ by channel, which no TFLite tensor can say: the mean is subtracted from the pixels, or
    from the bias, and padded around them: one row or column of it, or two."""
    random, node = np.random.default_rng(0), helper.make_node
    constants = {
        "ones": np.ones(3, np.float32),
        "mean": np.array([104, 117, 123], np.uint8),
        "w": random.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "b": random.integers(-9999, 9999, 4).astype(np.int32),
        "steps": np.array([0.01, 0.02, 0.03, 0.01], np.float32),
        "none": np.zeros(4, np.int8),
        "none.b": np.zeros(4, np.int32),
        "scale": np.array(16.0, np.float32),
        "zero": np.array(120, np.uint8),
    }
    weights = [
        node("DequantizeLinear", ["w", "steps", "none"], ["w.real"], "w.real", axis=0),
        node("DequantizeLinear", ["b", "steps", "none.b"], ["b.real"], "b.real", axis=0),
    ]
    if not integers:
        weights = []
        constants["w.real"] = constants["w"] * constants["steps"].reshape(4, 1, 1, 1)
        constants["b.real"] = (constants["b"] * constants["steps"]).astype(np.float32)
    graph = helper.make_graph(
        [
            node("DequantizeLinear", ["image", "ones", "mean"], ["centred"], "centred", axis=3),
            node("Transpose", ["centred"], ["nchw"], "nchw", perm=[0, 3, 1, 2]),
            *weights,
            node("Conv", ["nchw", "w.real", "b.real"], ["conv"], "conv", pads=[1, 1, 1, 1], strides=[2, 2]),
            node("QuantizeLinear", ["conv", "scale", "zero"], ["integers"], "integers"),
            node("DequantizeLinear", ["integers", "scale", "zero"], ["back"], "back"),
            node("Transpose", ["back"], ["out"], "out", perm=[0, 2, 3, 1]),
        ],
        "mixed",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *size, 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    image = random.integers(0, 256, (1, *size, 3), np.uint8)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"image": image})[0]
    interpreter = Interpreter(model_content=serialise(lower_tflite(model, {})))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    (detail,) = interpreter.get_output_details()
    scale, zero_point = detail["quantization"]
    got = (interpreter.get_tensor(detail["index"]).astype(float) - zero_point) * scale
    assert np.ptp(expected) > 50 * scale
    assert np.abs(got - expected).max() <= scale  # a step, where rounding differs


@pytest.mark.parametrize("factors", [(1, 3), (3, 1), (3, 2)])
def test_an_upsampling_has_a_factor_for_rows_and_one_for_columns(factors: tuple[int, int]) -> None:
    model = network(1, 1, 1, False, (4, 5), seed=0, factors=factors)
    assert_exact(model, (4, 5))
    lowered = lower_tflite(model, {})
    (resize,) = (operator for operator in lowered.operators if operator.name == "RESIZE_NEAREST_NEIGHBOR")
    shapes = [lowered.tensors[index].shape for index in (resize.inputs[0], resize.outputs[0])]
    assert shapes == [(1, 4, 5, 2), (1, 4 * factors[0], 5 * factors[1], 2)]
    assert lowered.tensors[resize.inputs[1]].data.tolist() == [4 * factors[0], 5 * factors[1]]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("size", "stride", "pads"),
    [
        ((8, 9), 1, 0),
        ((7, 9), 2, 0),  # the first and the last window reach one zero each
        ((7, 8), 2, 1),  # of eight, PyTorch pads the first; SAME would pad the last
        ((8, 8), 2, 1),
        ((7, 10), 3, 0),
        ((7, 8), 3, 1),
        ((9, 9), 3, 1),  # SAME would pad nothing and begin a pixel later
    ],
)
def test_a_pad_is_spent_only_where_same_pads_elsewhere(size: tuple[int, int], stride: int, pads: int) -> None:
    model = network(channels=2, kernel=3, stride=stride, depthwise=False, size=size, seed=0)
    assert operators(serialise(lower_tflite(model, {})))["PAD"] == pads
