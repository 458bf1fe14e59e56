"""Every operation by itself: TFLite and OpenVINO compute what ONNX Runtime computes, in FP32."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from oracles.networks import RESIDUAL_FORMS, ResidualForm, residual_network

from retinaface_edge.export.lower.openvino import lower_openvino
from retinaface_edge.export.lower.tflite import LoweringError, lower_tflite
from retinaface_edge.export.lower.tflite_schema import Graph, serialise
from retinaface_edge.runtime.ops.postprocess import Grid

LEAST_DECIBELS = 100.0
NHWC = {"perm": [0, 2, 3, 1]}
KERNELS = (OpResolverType.AUTO, OpResolverType.BUILTIN_REF)


def node(kind: str, inputs: Sequence[str], name: str = "", **attributes: Any) -> onnx.NodeProto:
    name = name or kind.lower()
    return helper.make_node(kind, list(inputs), [name], name, **attributes)


def between_transposes(
    nodes: Sequence[onnx.NodeProto],
    shape: tuple[int, int, int],
    constants: dict[str, Any] | None = None,
    opset: int = 18,
) -> onnx.ModelProto:
    """NCHW operations on "x" of `shape` (height, width, channels) as a graph of floats; the last gives its output."""
    last = nodes[-1].output[0]
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["image"], ["x"], "x", perm=[0, 3, 1, 2]),
            *nodes,
            helper.make_node("Transpose", [last], ["out"], "out", **NHWC),
        ],
        "operations",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, *shape])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, "h", "w", "c"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def by_onnxruntime(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return np.asarray(session.run(None, {session.get_inputs()[0].name: image})[0])


def by_litert(graph: Graph, image: np.ndarray, kernels: OpResolverType) -> np.ndarray:
    interpreter = Interpreter(model_content=serialise(graph), experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    found = {detail["name"]: tuple(detail["shape"]) for detail in interpreter.get_tensor_details()}
    assert {t.name: found[t.name] for t in graph.tensors} == {t.name: t.shape for t in graph.tensors}
    interpreter.set_tensor(graph.inputs[0], image)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(graph.outputs[0]))


def by_openvino(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    spec = cast(Any, SimpleNamespace(outputs=[SimpleNamespace(name="out")]))
    xml, weights = lower_openvino(model, spec)
    compiled = openvino.Core().compile_model(
        openvino.Core().read_model(xml, weights), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return np.asarray(compiled([image])[0])


def assert_exact(model: onnx.ModelProto, image: np.ndarray | None = None, openvino_too: bool = True) -> Graph:
    """That every backend is within 100 dB of ONNX Runtime; gives the TFLite graph."""
    if image is None:
        shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
        image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = by_onnxruntime(model, image)
    lowered = lower_tflite(model, {})
    found = {str(kernels): by_litert(lowered, image, kernels) for kernels in KERNELS}
    if openvino_too:
        found["openvino"] = by_openvino(model, image)
    for name, got in found.items():
        assert got.shape == expected.shape, name
        error, size = (float(np.sqrt(np.mean(np.square(a, dtype=np.float64)))) for a in (got - expected, expected))
        assert error <= size * 10.0 ** (-LEAST_DECIBELS / 20.0), (name, error, size)
    return lowered


def names(graph: Graph) -> list[str]:
    return [operator.name for operator in graph.operators]


sides = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=80)
@given(
    size=st.tuples(st.integers(5, 12), st.integers(5, 12)),
    kernel=sides,
    strides=sides,
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    rounds_up=st.booleans(),
    rectified=st.booleans(),
)
def test_a_largest_value_is_that_of_its_window(
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    rounds_up: bool,
    rectified: bool,
) -> None:
    pads = tuple(min(pad, kernel[axis % 2] - 1) for axis, pad in enumerate(pads))  # type: ignore[assignment]
    pool = node("MaxPool", ["conv.activation" if rectified else "x"], kernel_shape=kernel, strides=strides, pads=pads,
                ceil_mode=int(rounds_up))  # fmt: skip
    before = [node("Conv", ["x", "w", "b"], "conv"), node("Relu", ["conv"], "conv.activation")] if rectified else []
    constants = {"w": -np.eye(3, dtype=np.float32)[..., None, None], "b": np.zeros(3, np.float32)} if rectified else {}
    # All negative: padding with zeros would win.
    image = -1.0 - np.random.default_rng(0).random((1, *size, 3), np.float32)
    lowered = assert_exact(between_transposes([*before, pool], (*size, 3), constants), image, openvino_too=False)
    assert names(lowered).count("PAD") + names(lowered).count("PADV2") <= 1
    assert "PADV2" not in names(lowered) or not rectified


@settings(max_examples=80)
@given(
    size=st.tuples(st.integers(5, 12), st.integers(5, 12)),
    kernel=sides,
    strides=sides,
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    rounds_up=st.booleans(),
    counts=st.booleans(),
)
def test_a_mean_is_that_of_its_window_or_refused(
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    rounds_up: bool,
    counts: bool,
) -> None:
    pads = tuple(min(pad, kernel[axis % 2] - 1) for axis, pad in enumerate(pads))  # type: ignore[assignment]
    pool = node("AveragePool", ["x"], kernel_shape=kernel, strides=strides, pads=pads, ceil_mode=int(rounds_up),
                count_include_pad=int(counts))  # fmt: skip
    model = between_transposes([pool], (*size, 3))
    try:
        lower_tflite(model, {})
    except LoweringError as error:
        assert any(pads) or rounds_up
        assert "which is not how TFLite's SAME pads" in str(error) or "counts padding in some windows" in str(error)
    else:
        assert_exact(model, openvino_too=False)


@pytest.mark.parametrize("rounds_up", [0, 1])
def test_the_pools_of_published_networks_need_no_padding(rounds_up: int) -> None:
    for kind in ("MaxPool", "AveragePool"):
        pool = node(kind, ["x"], kernel_shape=[2, 2], strides=[2, 2], pads=[0] * 4, ceil_mode=rounds_up)
        assert len(names(assert_exact(between_transposes([pool], (8, 6, 3))))) == 1


def test_the_pool_of_a_resnet_pads_zeros_behind_its_relu() -> None:
    constants = {"w": np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32), "b": np.zeros(4, "f4")}
    nodes = [
        node("Conv", ["x", "w", "b"], pads=[1] * 4),
        node("Relu", ["conv"]),
        node("MaxPool", ["relu"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
    ]
    assert names(assert_exact(between_transposes(nodes, (12, 8, 3), constants))) == ["CONV_2D", "PAD", "MAX_POOL_2D"]


@settings(max_examples=80)
@given(
    size=st.tuples(st.integers(9, 14), st.integers(9, 14)),
    kernel=sides,
    dilations=sides,
    strides=sides,
    pads=st.tuples(*[st.integers(0, 4)] * 4),
    depthwise=st.booleans(),
)
def test_a_dilated_convolution_is_exact(
    size: tuple[int, int],
    kernel: tuple[int, int],
    dilations: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    depthwise: bool,
) -> None:
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    pads = tuple(min(pad, reach[axis % 2]) for axis, pad in enumerate(pads))  # type: ignore[assignment]
    random = np.random.default_rng(0)
    constants = {
        "w": random.normal(size=(3, 1 if depthwise else 3, *kernel)).astype(np.float32),
        "b": random.normal(size=3).astype(np.float32),
    }
    conv = node("Conv", ["x", "w", "b"], dilations=dilations, strides=strides, pads=pads, group=3 if depthwise else 1)
    assert_exact(between_transposes([conv], (*size, 3), constants), openvino_too=False)


@pytest.mark.parametrize("dilation", [2, 3, 5])
def test_the_branches_of_rfb_keep_their_size_without_a_pad(dilation: int) -> None:
    constants = {"w": np.random.default_rng(0).normal(size=(3, 3, 3, 3)).astype(np.float32), "b": np.ones(3, "f4")}
    conv = node("Conv", ["x", "w", "b"], dilations=[dilation] * 2, pads=[dilation] * 4)
    assert names(assert_exact(between_transposes([conv], (16, 12, 3), constants))) == ["CONV_2D"]


CLIPS: list[tuple[list[str], dict[str, float], str]] = [
    (["low", "six"], {}, "CONV_2D"),
    (["low", "most"], {}, "CONV_2D"),
    (["low"], {}, "CONV_2D"),
]


@pytest.mark.parametrize(("bounds", "attributes", "operator"), CLIPS)
def test_a_clip_from_zero_is_fused(bounds: list[str], attributes: dict[str, float], operator: str) -> None:
    constants = {
        "w": 4.0 * np.eye(3, dtype=np.float32)[..., None, None],
        "b": np.ones(3, np.float32),
        "low": np.float32(0.0),
        "six": np.float32(6.0),
        "most": np.finfo(np.float32).max,
    }
    used = {name: constants[name] for name in ("w", "b", *bounds)}
    model = between_transposes([node("Conv", ["x", "w", "b"]), node("Clip", ["conv", *bounds])], (6, 5, 3), used)
    assert names(assert_exact(model)) == [operator]


def test_a_clip_of_an_old_exporter_has_its_bounds_as_attributes() -> None:
    constants = {"w": 4.0 * np.eye(3, dtype=np.float32)[..., None, None], "b": np.ones(3, np.float32)}
    nodes = [node("Conv", ["x", "w", "b"]), node("Clip", ["conv"], min=0.0, max=6.0)]
    assert names(assert_exact(between_transposes(nodes, (6, 5, 3), constants, opset=9))) == ["CONV_2D"]


@pytest.mark.parametrize("after", ["", "Relu", "Clip"])
def test_a_sum_takes_its_activation_along(after: str) -> None:
    bounds = ["low", "six"] if after == "Clip" else []
    constants = (
        {"low": np.float32(0.0), "six": np.float32(6.0), "a": np.float32(3.0)} if bounds else {"a": np.float32(3.0)}
    )
    nodes = [node("Mul", ["x", "a"]), node("Add", ["mul", "x"])]
    nodes += [node(after, ["add", *bounds], "activation")] if after else []
    lowered = assert_exact(between_transposes(nodes, (6, 5, 3), constants))
    assert names(lowered) == ["MUL", "ADD"]


@pytest.mark.parametrize("kind", ["Mul", "Div"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 1), (1, 3, 1, 1)])
@pytest.mark.parametrize("rectified", [False, True])
def test_a_constant_factor_goes_into_the_convolution(kind: str, shape: tuple[int, ...], rectified: bool) -> None:
    """SCRFD multiplies its boxes by one learnt number a level."""
    random = np.random.default_rng(0)
    constants = {
        "w": random.normal(size=(3, 3, 1, 1)).astype(np.float32),
        "b": random.normal(size=3).astype(np.float32),
        "factor": random.normal(size=shape).astype(np.float32),
    }
    nodes = [node("Conv", ["x", "w", "b"]), node(kind, ["conv", "factor"], "scaled")]
    nodes += [node("Relu", ["scaled"])] if rectified else []
    assert names(assert_exact(between_transposes(nodes, (6, 5, 3), constants))) == ["CONV_2D"]
    assert names(assert_exact(between_transposes([node(kind, ["x", "factor"])], (6, 5, 3), constants))) == ["MUL"]


def test_a_factor_that_others_do_not_see_is_not_folded() -> None:
    constants = {"w": np.ones((3, 3, 1, 1), np.float32), "b": np.ones(3, np.float32), "factor": np.float32(-0.5)}
    nodes = [node("Conv", ["x", "w", "b"]), node("Mul", ["factor", "conv"]), node("Add", ["mul", "conv"])]
    assert names(assert_exact(between_transposes(nodes, (6, 5, 3), constants))) == ["CONV_2D", "MUL", "ADD"]


NEAREST = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
COORDINATES = ("asymmetric", "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners")


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("rounding", NEAREST)
def test_an_enlargement_is_lowered_where_it_repeats_pixels_and_refused_elsewhere(
    coordinates: str, rounding: str
) -> None:
    picture = np.arange(5 * 4, dtype=np.float32).reshape(1, 5, 4, 1)
    for factor in (1, 2, 3, 4, 5):
        resize = node("Resize", ["x", "", "scales"], mode="nearest", nearest_mode=rounding,
                      coordinate_transformation_mode=coordinates)  # fmt: skip
        scales = np.array([1, 1, factor, factor], np.float32)
        model = between_transposes([resize], (5, 4, 1), {"scales": scales})
        repeated = np.repeat(np.repeat(picture, factor, axis=1), factor, axis=2)
        repeats = np.array_equal(by_onnxruntime(model, picture), repeated)
        try:
            lowered = lower_tflite(model, {})
        except LoweringError:
            # Nothing that published networks use is refused: these two have no exact rule of their own.
            assert not repeats or coordinates in ("pytorch_half_pixel", "align_corners") or factor == 1
        else:
            assert repeats, factor
            np.testing.assert_array_equal(by_litert(lowered, picture, OpResolverType.AUTO), repeated)


@pytest.mark.parametrize("empty", [True, False])
def test_an_enlargement_may_be_given_by_its_size(empty: bool) -> None:
    """As SCRFD's exporter does, with empty scales beside it."""
    constants = {"sizes": np.array([1, 2, 9, 8], np.int64), "none": np.zeros(0, np.float32)}
    inputs = ["x", "none", "none", "sizes"] if empty else ["x", "", "", "sizes"]
    resize = node("Resize", inputs, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    used = constants if empty else {"sizes": constants["sizes"]}
    assert names(assert_exact(between_transposes([resize], (3, 4, 2), used))) == ["RESIZE_NEAREST_NEIGHBOR"]


def test_an_upsample_of_an_old_exporter_repeats_pixels() -> None:
    constants = {"scales": np.array([1, 1, 2, 3], np.float32)}
    model = between_transposes([node("Upsample", ["x", "scales"], mode="nearest")], (3, 4, 2), constants, opset=9)
    assert names(assert_exact(model)) == ["RESIZE_NEAREST_NEIGHBOR"]


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_parts_of_a_split_and_a_slice_are_where_they_were(axis: int) -> None:
    parts = helper.make_node("Split", ["x", "sizes"], ["a", "b"], "split", axis=axis)
    constants = {
        "sizes": np.array([1, 3]),
        "start": np.array([-3]),
        "end": np.array([2**40]),
        "axis": np.array([axis]),
    }
    cut = node("Slice", ["x", "start", "end", "axis"])
    nodes = [parts, cut, node("Add", ["slice", "b"])]
    assert names(assert_exact(between_transposes(nodes, (4, 4, 4), constants))) == ["SLICE", "SLICE", "SLICE", "ADD"]


def test_a_split_without_sizes_is_even() -> None:
    parts = helper.make_node("Split", ["x"], ["a", "b", "c"], "split", axis=1, num_outputs=3)
    model = between_transposes([parts, node("Concat", ["c", "a", "b"], axis=1)], (4, 3, 7))
    lowered = assert_exact(model)
    assert [t.shape[3] for t in lowered.tensors if t.name in "abc"] == [3, 3, 1]


@pytest.mark.parametrize("shape", [(1, -1, 4), (0, -1, 2), (20, 2), (1, 2, 5, 4)])
def test_an_output_may_be_rearranged(shape: tuple[int, ...]) -> None:
    graph = helper.make_graph(
        [node("LeakyRelu", ["image"]), node("Transpose", ["leakyrelu"], perm=[0, 3, 1, 2]),
         node("Relu6Free", ["transpose"]), node("Transpose", ["relu6free"], "back", **NHWC),
         helper.make_node("Reshape", ["back", "shape"], ["out"], "out")],
        "rearranged",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 5, 2, 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(shape), "shape")],
    )  # fmt: skip
    graph.node[2].op_type = "LeakyRelu"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert_exact(model)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("form", ["pytorch", "attribute", "each channel"])
def test_group_normalisation_is_that_of_onnx(groups: int, form: str) -> None:
    random = np.random.default_rng(0)
    height, width, channels = 40, 24, 6
    each = {"scale": random.normal(size=channels), "shift": random.normal(size=channels)}
    constants = {name: numbers.astype(np.float32) for name, numbers in each.items()}
    if form == "pytorch":
        constants = {
            "ones": random.normal(size=groups).astype(np.float32),
            "zeros": random.normal(size=groups).astype(np.float32),
            "groups": np.array([0, groups, -1]),  # type: ignore[dict-item]
            "back": np.array([1, channels, height, width]),  # type: ignore[dict-item]
            **{name: numbers.reshape(channels, 1, 1) for name, numbers in constants.items()},
        }
        nodes = [
            node("Reshape", ["x", "groups"], "grouped"),
            node("InstanceNormalization", ["grouped", "ones", "zeros"], "normal", epsilon=1e-4),
            node("Reshape", ["normal", "back"], "normalised"),
            node("Mul", ["normalised", "scale"], "scaled"),
            node("Add", ["scaled", "shift"], "shifted"),
            node("Relu", ["shifted"]),
        ]
    elif form == "each channel":
        nodes = [node("InstanceNormalization", ["x", "scale", "shift"])]
    else:
        nodes = [node("GroupNormalization", ["x", "scale", "shift"], num_groups=groups)]
    opset = 21 if form == "attribute" else 18
    model = between_transposes(nodes, (height, width, channels), constants, opset=opset)
    image = (5.0 + 3.0 * random.normal(size=(1, height, width, channels))).astype(np.float32)
    assert_exact(model, image)


@settings(max_examples=40)
@given(form=RESIDUAL_FORMS)
def test_residual_networks_of_any_form_are_lowered_exactly(form: ResidualForm) -> None:
    image = np.random.default_rng(form.seed).integers(0, 256, (1, *form.size, 3), np.uint8)
    assert_exact(residual_network(form), image, openvino_too=form.seed % 8 == 0)


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
    expected = by_onnxruntime(model, image)
    lowered = lower_tflite(model, {"x": Grid(1 / 32, 128)})
    assert names(lowered)[:3] == ["QUANTIZE", "MAX_POOL_2D", "DEQUANTIZE"] and names(lowered)[-1] == "QUANTIZE"
    assert lowered.float_operators > 8
    for kernels in KERNELS:
        got = by_litert(lowered, image, kernels).astype(float) / 16.0
        assert np.abs(got - expected).max() <= 1 / 16
