"""Kernels compute each layer of an INT8 network as the integer reference does, within a step or two of its grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.kernels import Agreement, compare_litert, compare_openvino
from oracles.litert import INT8, elementwise, xnnpack
from oracles.networks import RESIDUAL_FORMS, RESIDUAL_VALUES, ResidualForm, residual_network
from oracles.reference import RELU, RELU6, evaluate
from retinaface_edge.calibration.calibrate import calibrate
from retinaface_edge.calibration.dataset.image_set import image_set
from retinaface_edge.calibration.dataset.synthetic_scenes import portrait, scenes
from retinaface_edge.calibration.qdq import quantise
from retinaface_edge.calibration.recipe import read_recipe
from retinaface_edge.export.checkpoints.checkpoint import Checkpoint
from retinaface_edge.export.graph.export import to_onnx
from retinaface_edge.export.lower.tflite import lower_tflite
from retinaface_edge.export.lower.tflite_schema import Graph, Operator
from retinaface_edge.export.models.deploy import Deploy
from retinaface_edge.runtime import Spec
from retinaface_edge.runtime.ops.postprocess import QuantParams


@dataclass(frozen=True)
class Network:
    """The demo's detector, small, with the reference's value of every tensor for one photograph."""

    int8: onnx.ModelProto
    graph: Graph
    values: list[np.ndarray]


@pytest.fixture(scope="module")
def network(checkpoint: Checkpoint) -> Network:
    spec = Spec(320, 256)
    images = image_set(spec, [portrait(), *scenes(11, seed=2)], "scenes")
    calibrated = calibrate(to_onnx(Deploy(checkpoint.model, spec).eval(), spec), spec, images, read_recipe("fast"))
    int8 = quantise(calibrated, spec)
    graph = lower_tflite(int8, calibrated.quant_params)
    return Network(int8, graph, evaluate(graph, [images.inputs[0]]))


@pytest.fixture(scope="module")
def litert(network: Network) -> dict[str, list[Agreement]]:
    return {name: list(compare_litert(network.graph, network.values, name)) for name in ("xnnpack", "builtin")}


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin"])
def test_litert_is_within_a_step_of_the_reference(
    litert: dict[str, list[Agreement]], network: Network, kernels: str
) -> None:
    assert [layer.tensor for layer in litert[kernels]] == [
        network.graph.tensors[operator.outputs[0]].name for operator in network.graph.operators
    ]
    for layer in litert[kernels]:
        assert layer.elements == network.values[_index(network, layer.tensor)].size
        assert layer.within(1) >= 0.999, layer


def test_xnnpack_takes_every_layer_that_it_has(litert: dict[str, list[Agreement]]) -> None:
    """A single operator that XNNPACK does not take runs elsewhere and would say nothing about it."""
    own = Counter(layer.operator for layer in litert["xnnpack"] if layer.ran == "own")
    assert own == {"QUANTIZE": 1, "RESIZE_NEAREST_NEIGHBOR": 2}
    assert {layer.ran for layer in litert["builtin"]} == {"own"}


def test_xnnpack_equals_the_reference_on_every_element(litert: dict[str, list[Agreement]]) -> None:
    """Calibration chose the scales for that; with others some percent of the results are a step off."""
    assert sum(layer.elements for layer in litert["xnnpack"]) > 5_000_000
    for layer in litert["xnnpack"]:
        assert layer.within(0) == 1.0, layer


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin"])
def test_what_only_moves_or_adds_values_is_equal_everywhere(litert: dict[str, list[Agreement]], kernels: str) -> None:
    exact = {"ADD", "CONCATENATION", "PAD", "QUANTIZE", "RESIZE_NEAREST_NEIGHBOR"}
    checked = [layer for layer in litert[kernels] if layer.operator in exact]
    assert len(checked) == 14
    for layer in checked:
        assert layer.within(0) == 1.0, layer


def test_openvino_is_within_two_steps_of_the_reference(network: Network) -> None:
    """It fuses each activation, so it lacks the rounding and clipping between both that TFLite has."""
    layers = list(compare_openvino(network.int8, network.graph, network.values))
    assert Counter(layer.operator for layer in layers) == {
        "Conv+LeakyRelu": 38,
        "Conv+Relu": 9,
        "Resize+Add": 2,
        "Concat+Conv": 9,
    }
    for layer in layers:
        assert layer.elements == network.values[_index(network, layer.tensor)].size
        # Below 99 % a layer must have its reason: values that only TFLite cuts off before the activation.
        assert layer.within(2) >= 0.99 - layer.clipped, layer
    assert sum(layer.within(2) >= 0.99 for layer in layers) >= 50


def test_a_kernel_that_strays_is_seen(network: Network) -> None:
    """The same comparison with a reference that is two steps off for one layer."""
    strayed = list(network.values)
    index = next(o.outputs[0] for o in network.graph.operators if o.name == "LEAKY_RELU")
    strayed[index] = strayed[index] // 2
    layer = next(
        layer
        for layer in compare_litert(network.graph, strayed, "reference")
        if layer.tensor == network.graph.tensors[index].name
    )
    assert layer.within(1) < 0.9
    assert layer.elements == strayed[index].size


exponents = st.integers(-6, 6)
zero_points = st.integers(0, 255)


@settings(max_examples=60)
@given(
    scale=st.floats(2.0**-8, 0.25, width=32),
    powers=st.tuples(exponents, exponents),
    zeros=st.tuples(zero_points, zero_points, zero_points),
    activation=st.sampled_from([0, RELU, RELU6]),
)
def test_xnnpack_adds_as_the_reference_where_scales_are_powers_of_two(
    scale: float, powers: tuple[int, int], zeros: tuple[int, int, int], activation: int
) -> None:
    """All pairs of int8 values. Where no ReLU cuts negative halves off, no power may be below 0."""
    if not activation:
        powers = abs(powers[0]), abs(powers[1])
    terms = [QuantParams(scale * 2.0**power, zero) for power, zero in zip(powers, zeros[:2], strict=True)]
    assert _different(terms, QuantParams(scale, zeros[2]), activation) == 0


def test_xnnpack_adds_otherwise_where_negative_halves_are_rounded() -> None:
    """Were it not so, calibration would not have to choose the scales of what an addition reads."""
    halves = [QuantParams(0.05, 128), QuantParams(0.05, 128)]
    assert _different(halves, QuantParams(0.1, 128), 0) > 1000
    assert _different(halves, QuantParams(0.1, 128), RELU) == 0
    assert _different([QuantParams(0.037, 128), QuantParams(0.051, 128)], QuantParams(0.1, 128), 0) > 0


def _different(terms: list[QuantParams], total: QuantParams, activation: int) -> int:
    graph = elementwise("ADD", terms, total, {"fusedActivationFunction": activation}, 65536)
    pairs = [np.ascontiguousarray(side.reshape(1, -1, 1, 1)) for side in np.meshgrid(INT8, INT8)]
    return int(np.count_nonzero(xnnpack(graph, pairs) != evaluate(graph, pairs)[2]))


scales = st.floats(2.0**-6, 2.0**-4, width=32)


@settings(max_examples=20)
@given(
    form=RESIDUAL_FORMS,
    total=scales,
    stem=scales,
    left=scales,
    linear=scales,
    powers=st.tuples(*[st.integers(0, 2)] * 2),
)
def test_residual_networks_are_equal_by_every_kernel(
    form: ResidualForm, total: float, stem: float, left: float, linear: float, powers: tuple[int, int]
) -> None:
    """XNNPACK, LiteRT's own and the defining kernels, operator by operator, on scales that calibration would choose."""
    low = 0 if form.after_add else 128
    quant_params = {
        "stem": QuantParams(stem, 0),
        "left": QuantParams(left, 0),
        "linear": QuantParams(linear, 128),
        "right": QuantParams(total * 2.0 ** powers[0], 128),
        "shortcut": QuantParams(total * 2.0 ** powers[1], 128),
        "total": QuantParams(total, low),
    }
    graph = lower_tflite(residual_network(form, quant_params), quant_params)
    values = evaluate(graph, [np.random.default_rng(form.seed).integers(0, 256, (1, *form.size, 3), np.uint8)])
    for layer in compare_litert(graph, values, "xnnpack"):
        assert layer.within(0) == 1.0, layer
        assert (layer.ran == "own") == (layer.operator in ("QUANTIZE", "RESIZE_NEAREST_NEIGHBOR", "PADV2")), layer
    for layer in compare_litert(graph, values, "builtin"):
        # LiteRT's own convolutions may be a step off, as those of the demo's detector are.
        exact = layer.operator not in ("CONV_2D", "DEPTHWISE_CONV_2D")
        assert layer.within(0 if exact else 1) == 1.0, layer


@pytest.mark.parametrize(
    "form",
    [
        ResidualForm(),
        ResidualForm(relu6=True, after_add="Clip", dilation=2),
        ResidualForm(depthwise=True, after_add=""),
    ],
)
def test_openvino_is_within_two_steps_of_the_reference_on_residual_networks(form: ResidualForm) -> None:
    quant_params = {
        name: QuantParams(0.04, 0 if name in ("stem", "left") or (name == "total" and form.after_add) else 128)
        for name in RESIDUAL_VALUES
    }
    model = residual_network(form, quant_params)
    graph = lower_tflite(model, quant_params)
    values = evaluate(graph, [np.random.default_rng(0).integers(0, 256, (1, *form.size, 3), np.uint8)])
    layers = list(compare_openvino(model, graph, values))
    assert {name for layer in layers for name in layer.operator.split("+")} >= {"Add", "Conv", "MaxPool"}
    for layer in layers:
        assert layer.elements and layer.within(2) == 1.0, layer


RELU_N1_TO_1 = 2
Change = Callable[[Operator], Operator]


def option(**changed: int) -> Change:
    return lambda operator: replace(operator, options={**operator.options, **changed})


FAULTS: dict[str, tuple[str, Change]] = {
    "the pool's windows are smaller": ("pool", option(filterHeight=2, filterWidth=2)),
    "the pool takes the mean": ("pool", lambda operator: replace(operator, name="AVERAGE_POOL_2D")),
    "the dilation is forgotten": ("left.activation", option(dilationHFactor=1, dilationWFactor=1)),
    "the ReLU6 is another clip": ("left.activation", option(fusedActivationFunction=RELU_N1_TO_1)),
    "the sum's activation is forgotten": ("total.activation", option(fusedActivationFunction=0)),
    "the sum adds one term twice": (
        "total.activation",
        lambda operator: replace(operator, inputs=(operator.inputs[0], operator.inputs[0])),
    ),
    "the parts are joined in another order": (
        "joined",
        lambda operator: replace(operator, inputs=operator.inputs[::-1]),
    ),
    "the second part begins at the first": (
        "part.b",
        lambda operator: replace(operator, inputs=(operator.inputs[0], operator.inputs[1] - 3, operator.inputs[2])),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_planted_in_an_operator_is_seen_there_and_nowhere_else(fault: str) -> None:
    tensor, change = FAULTS[fault]
    form = ResidualForm(size=(20, 16), relu6=True, after_add="Clip", dilation=2)
    quant_params = {name: QuantParams(0.05, 0 if name in ("stem", "left") else 128) for name in RESIDUAL_VALUES}
    graph = lower_tflite(residual_network(form, quant_params), quant_params)
    values = evaluate(graph, [np.random.default_rng(0).integers(0, 256, (1, *form.size, 3), np.uint8)])
    faulty = replace(
        graph,
        operators=[change(o) if graph.tensors[o.outputs[0]].name == tensor else o for o in graph.operators],
    )
    assert faulty.operators != graph.operators
    for kernels in ("xnnpack", "reference"):
        wrong = {layer.tensor for layer in compare_litert(faulty, values, kernels) if layer.within(0) < 1.0}
        assert wrong == {tensor}


def _index(network: Network, tensor: str) -> int:
    return next(index for index, entry in enumerate(network.graph.tensors) if entry.name == tensor)
