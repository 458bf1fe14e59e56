"""Graph passes: each does one thing, keeps what the network computes, and is held to what it promises."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from oracles.residual import ResidualDetector

from retinaface_edge.calibration.graph.onnx_graph import GraphError, read_graph, to_proto
from retinaface_edge.calibration.graph.session import run
from retinaface_edge.calibration.qdq import _input_as_integers
from retinaface_edge.export.graph.export import to_onnx
from retinaface_edge.export.graph.passes.canonical import PASSES
from retinaface_edge.export.graph.passes.constants import constants_as_initialisers
from retinaface_edge.export.graph.passes.convolution_biases import convolution_biases
from retinaface_edge.export.graph.passes.fold_average import fold_average
from retinaface_edge.export.graph.passes.fold_normalisation import fold_normalisation
from retinaface_edge.export.graph.passes.graph_pass import PassError, convolutions_have_biases, graph_pass
from retinaface_edge.export.graph.passes.module_names import module_names
from retinaface_edge.export.graph.passes.uint8_stem import uint8_stem
from retinaface_edge.runtime import Spec


def made(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape: list[int], kind: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    """A model from `image`, of that shape, to `out`."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def computed(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": image})[0])


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_reading_and_writing_a_graph_keeps_its_bytes(fp32: onnx.ModelProto, int8: onnx.ModelProto) -> None:
    for model in (fp32, int8):
        before = model.SerializeToString(deterministic=True)
        assert to_proto(read_graph(model)).SerializeToString(deterministic=True) == before
        assert model.SerializeToString(deterministic=True) == before


def test_passes_leave_their_argument_alone_and_find_nothing_to_do_twice(fp32: onnx.ModelProto) -> None:
    model = read_graph(fp32)
    for rewrite in PASSES:
        again = rewrite(model)
        assert to_proto(again) == fp32, rewrite.__name__
    assert to_proto(model) == fp32


def test_a_pass_that_breaks_its_promise_is_named() -> None:
    conv = helper.make_node("Conv", ["image", "w"], ["out"], "c")
    model = read_graph(made([conv], {"w": np.ones((1, 1, 1, 1), np.float32)}, [1, 1, 4, 4]))

    @graph_pass(ensures=[convolutions_have_biases])
    def forgets(model: ir.Model) -> ir.Model:
        return model.clone()

    @graph_pass()
    def renames(model: ir.Model) -> ir.Model:
        changed = model.clone()
        changed.graph.outputs[0].name = "other"
        return changed

    @graph_pass(requires=[convolutions_have_biases])
    def demands(model: ir.Model) -> ir.Model:
        return model

    with pytest.raises(PassError, match="the pass forgets did not do its work: the convolution c has no bias"):
        forgets(model)
    with pytest.raises(PassError, match="the pass renames changed the graph's inputs or outputs"):
        renames(model)
    with pytest.raises(PassError, match="the pass demands cannot take this graph: the convolution c has no bias"):
        demands(model)


def test_a_malformed_graph_is_one_line() -> None:
    model = made([helper.make_node("Add", ["image", "w"], ["out"])], {"w": np.ones(1, np.float32)}, [1, 1])
    model.graph.initializer[0].data_type = 99
    with pytest.raises(GraphError, match="the graph is malformed"):
        read_graph(model)


def test_constants_become_initialisers_scalars_included() -> None:
    nodes = [
        helper.make_node("Constant", [], ["low"], value=numpy_helper.from_array(np.float32(0.0))),
        helper.make_node("Constant", [], ["high"], value_float=6.0),
        helper.make_node("Clip", ["image", "low", "high"], ["out"], "clip"),
    ]
    model = made(nodes, {}, [1, 2, 3, 3])
    lifted = constants_as_initialisers(read_graph(model))
    assert kinds(lifted) == ["Clip"]
    assert list(lifted.graph.initializers) == ["low", "high"]
    image = np.linspace(-3, 9, 18, dtype=np.float32).reshape(1, 2, 3, 3)
    np.testing.assert_array_equal(computed(to_proto(lifted), image), np.clip(image, 0, 6))
    assert constants_as_initialisers(lifted) is lifted


def test_a_bias_of_zeros_is_added_once_for_each_layer_of_shared_weights() -> None:
    weights = {"a.weight": np.ones((2, 2, 1, 1), np.float32), "s": np.float32(3.0)}
    nodes = [
        helper.make_node("Conv", ["image", "a.weight"], ["x"], "x"),
        helper.make_node("Mul", ["x", "s"], ["y"], "y"),
        helper.make_node("Conv", ["y", "a.weight"], ["out"], "z"),
    ]
    model = made(nodes, weights, [1, 2, 4, 4])
    changed = convolution_biases(read_graph(model))
    assert [len(node.inputs) for node in changed.graph] == [3, 2, 3]
    named = module_names(changed)
    assert [node.name for node in named.graph] == ["a", "a.mul", "a_"]
    image = np.random.default_rng(0).random((1, 2, 4, 4), np.float32)
    np.testing.assert_array_equal(computed(to_proto(named), image), computed(model, image))


@given(st.integers(0, 2**32 - 1), st.integers(2, 3), st.integers(0, 1))
def test_an_average_before_a_pointwise_convolution_is_one_convolution(seed: int, k: int, ceil: int) -> None:
    random = np.random.default_rng(seed)
    weights = {"w": random.normal(size=(5, 3, 1, 1)).astype(np.float32), "b": random.normal(size=5).astype(np.float32)}
    nodes = [
        helper.make_node(
            "AveragePool", ["image"], ["p"], "p", kernel_shape=[k, k], strides=[k, k], ceil_mode=int(ceil)
        ),
        helper.make_node("Conv", ["p", "w", "b"], ["out"], "c", kernel_shape=[1, 1]),
    ]
    model = made(nodes, weights, [1, 3, 4 * k, 3 * k])
    folded = fold_average(read_graph(model))
    assert kinds(folded) == ["Conv"]
    image = random.normal(size=(1, 3, 4 * k, 3 * k)).astype(np.float32)
    np.testing.assert_allclose(computed(to_proto(folded), image), computed(model, image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("pool", "convolution", "shape"),
    [
        ({"kernel_shape": [2, 2], "strides": [1, 1]}, {}, [1, 3, 8, 8]),
        ({"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 0, 0]}, {}, [1, 3, 8, 8]),
        ({"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, {}, [1, 3, 7, 8]),
        ({"kernel_shape": [2, 2], "strides": [2, 2]}, {"strides": [2, 2]}, [1, 3, 8, 8]),
        ({"kernel_shape": [2, 2], "strides": [2, 2]}, {"pads": [1, 1, 1, 1]}, [1, 3, 8, 8]),
    ],
)
def test_other_averages_stay(pool: dict[str, object], convolution: dict[str, object], shape: list[int]) -> None:
    weights = {"w": np.ones((5, 3, 1, 1), np.float32), "b": np.ones(5, np.float32)}
    nodes = [
        helper.make_node("AveragePool", ["image"], ["p"], "p", **pool),  # type: ignore[arg-type]
        helper.make_node("Conv", ["p", "w", "b"], ["out"], "c", **convolution),  # type: ignore[arg-type]
    ]
    model = read_graph(made(nodes, weights, shape))
    assert fold_average(model) is model


MEANS = ((127.5, 127.5, 127.5), (123.675, 116.28, 103.53), (0.0, 0.0, 0.0), (104.0, 117.0, 123.0))


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("rgb", [False, True])
def test_scale_and_colour_order_go_into_the_first_convolution(mean: tuple[float, ...], rgb: bool) -> None:
    """Against PyTorch, on white and on noise: at the border, white differs most from the mean."""
    spec = Spec(96, 64)
    model = ResidualDetector(spec, mean, (58.0, 57.0, 59.0), rgb).eval().requires_grad_(False)
    exported = to_onnx(model, spec)
    front = [node.op_type for node in exported.graph.node][:4]
    assert front == (["Cast", "Sub", "Transpose", "Conv"] if any(mean) else ["Cast", "Transpose", "Conv", "Relu"]) or (
        front == ["Cast", "Sub", "Transpose", "Conv"]
    )
    white = np.full(spec.input_shape, 255, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, spec.input_shape, np.uint8)
    for image in (white, noise):
        for ours, theirs in zip(run(exported, spec, image), model(torch.from_numpy(image)), strict=True):
            assert np.abs(ours - theirs.numpy()).max() <= 1e-4


@given(
    st.sampled_from([1, 3, 5, 7]),
    st.integers(1, 3),
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
    st.tuples(st.integers(9, 14), st.integers(9, 14)),
    st.integers(0, 2**32 - 1),
)
def test_any_stem_reads_bytes(k: int, stride: int, pads: list[int], size: tuple[int, int], seed: int) -> None:
    random = np.random.default_rng(seed)
    pads = [min(pad, k - 1) for pad in pads]
    weights = {
        "mean": np.array([104, 117, 123], np.float32),
        "w": random.normal(size=(4, 3, k, k)).astype(np.float32),
        "b": random.normal(size=4).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], "f", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["f", "mean"], ["s"], "s"),
        helper.make_node("Transpose", ["s"], ["t"], "t", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w", "b"], ["out"], "c", strides=[stride, stride], pads=pads),
    ]
    model = made(nodes, weights, [1, *size, 3], TensorProto.UINT8)
    changed = uint8_stem(read_graph(model))
    assert "Sub" not in kinds(changed)
    image = random.integers(0, 256, (1, *size, 3), np.uint8)
    image[:, :2] = 255
    expected = computed(model, image)
    assert np.abs(computed(to_proto(changed), image) - expected).max() <= 1e-5 * max(np.abs(expected).max(), 100.0)


@pytest.mark.parametrize("mean", [(127.5, 127.5, 127.5), (123.675, 116.28, 103.53)])
def test_a_mean_between_bytes_is_exact_inside_and_half_a_level_off_at_the_border(mean: tuple[float, ...]) -> None:
    random = np.random.default_rng(1)
    weights = {
        "mean": np.array(mean, np.float32),
        "w": random.normal(size=(4, 3, 7, 7)).astype(np.float32),
        "b": random.normal(size=4).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], "f", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["f", "mean"], ["s"], "s"),
        helper.make_node("Transpose", ["s"], ["t"], "t", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w", "b"], ["out"], "c", strides=[2, 2], pads=[3, 3, 3, 3]),
    ]
    model = made(nodes, weights, [1, 20, 24, 3], TensorProto.UINT8)
    changed = read_graph(model)
    _input_as_integers(changed.graph)
    byte_wise = to_proto(uint8_stem(changed))
    image = random.integers(0, 256, (1, 20, 24, 3), np.uint8)
    expected = computed(model, image)
    bound = 0.5 * np.abs(weights["w"]).sum(axis=(1, 2, 3))[None, :, None, None]
    for candidate in (to_proto(changed), byte_wise):
        error = np.abs(computed(candidate, image) - expected)
        assert error[:, :, 2:-2, 2:-2].max() <= 1e-2
        assert np.all(error <= bound + 1e-2)
        assert error.max() > 0.1, "or the border would need no bound"


def test_a_graph_that_does_more_to_its_pixels_stays() -> None:
    weights = {"w": np.ones((2, 3, 3, 3), np.float32), "b": np.zeros(2, np.float32), "p": np.float32(2.0)}
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], "f", to=TensorProto.FLOAT),
        helper.make_node("Pow", ["f", "p"], ["s"], "s"),
        helper.make_node("Transpose", ["s"], ["t"], "t", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w", "b"], ["out"], "c"),
    ]
    model = read_graph(made(nodes, weights, [1, 8, 8, 3], TensorProto.UINT8))
    assert fold_normalisation(model) is model
    assert uint8_stem(model) is model
