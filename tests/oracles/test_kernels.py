"""Kernels compute each layer of an INT8 network as the integer reference does, within a step or two of its grid."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
import pytest

from oracles.kernels import Agreement, compare_litert, compare_openvino
from oracles.reference import evaluate
from retinaface_edge.calibration.calibrate import calibrate
from retinaface_edge.calibration.dataset.image_set import image_set
from retinaface_edge.calibration.dataset.synthetic_scenes import portrait, scenes
from retinaface_edge.calibration.qdq import quantise
from retinaface_edge.calibration.recipe import read_recipe
from retinaface_edge.export.checkpoints.checkpoint import Checkpoint
from retinaface_edge.export.graph.export import to_onnx
from retinaface_edge.export.lower.tflite import lower_tflite
from retinaface_edge.export.lower.tflite_schema import Graph
from retinaface_edge.export.models.deploy import Deploy
from retinaface_edge.runtime import Spec


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
    graph = lower_tflite(int8, calibrated.grids)
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


def _index(network: Network, tensor: str) -> int:
    return next(index for index, entry in enumerate(network.graph.tensors) if entry.name == tensor)
