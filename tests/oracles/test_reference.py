"""The integer reference: LiteRT's reference kernels compute the same integers, every element of every tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from oracles.kernels import compare_litert
from oracles.litert import INT8, elementwise, litert
from oracles.networks import NETWORKS, RESIDUAL_FORMS, RESIDUAL_VALUES, ResidualForm, network, residual_network
from oracles.reference import RELU, RELU6, ReferenceError, evaluate
from retinaface_edge.calibration.calibrate import Calibration, calibrate
from retinaface_edge.calibration.dataset.image_set import image_set
from retinaface_edge.calibration.dataset.synthetic_scenes import portrait, scenes
from retinaface_edge.calibration.fixed_point import multiplier, rescale
from retinaface_edge.calibration.qdq import quantise
from retinaface_edge.calibration.range_estimators import Range
from retinaface_edge.calibration.recipe import read_recipe
from retinaface_edge.export.checkpoints.checkpoint import Checkpoint
from retinaface_edge.export.graph.export import to_onnx
from retinaface_edge.export.lower.tflite import lower_tflite
from retinaface_edge.export.lower.tflite_schema import Graph, Operator, Quantisation, Tensor
from retinaface_edge.export.models.deploy import Deploy
from retinaface_edge.runtime import Spec
from retinaface_edge.runtime.ops.postprocess import QuantParams


def assert_equal_everywhere(graph: Graph, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    ours = evaluate(graph, inputs)
    for tensor, mine, theirs in zip(graph.tensors, ours, litert(graph, inputs), strict=True):
        assert mine.shape == theirs.shape == tensor.shape, tensor.name
        assert mine.dtype == theirs.dtype == tensor.dtype, tensor.name
        np.testing.assert_array_equal(mine, theirs, tensor.name)
    return ours


def test_the_detector_is_equal_at_vga(
    int8: onnx.ModelProto, calibration: Calibration, photographs: list[np.ndarray]
) -> None:
    graph = lower_tflite(int8, calibration.quant_params)
    for image in photographs[:2]:
        values = assert_equal_everywhere(graph, [image])
        assert len(values) > 200
        assert max(len(np.unique(values[index])) for index in graph.outputs) > 50


@pytest.mark.parametrize("size", [(160, 128), (64, 96)])
def test_the_detector_is_equal_at_other_sizes(checkpoint: Checkpoint, size: tuple[int, int]) -> None:
    spec = Spec(*size)
    images = image_set(spec, [portrait(), *scenes(5, seed=2)], "scenes")
    calibrated = calibrate(to_onnx(Deploy(checkpoint.model, spec).eval(), spec), spec, images, read_recipe("fast"))
    graph = lower_tflite(quantise(calibrated, spec), calibrated.quant_params)
    noise = np.random.default_rng(0).integers(0, 256, spec.input_shape, np.uint8)
    for image in (*images.inputs, noise, np.zeros_like(noise), np.full_like(noise, 255)):
        assert_equal_everywhere(graph, [image])


quant_params = st.builds(QuantParams, st.floats(2.0**-8, 0.25, width=32), st.integers(0, 255))


@settings(max_examples=300)
@given(
    **NETWORKS,
    before=quant_params,
    after=quant_params,
    joined=quant_params,
    total=quant_params,
)
def test_small_networks_of_any_shape_and_grid_are_equal(
    channels: int,
    kernel: int,
    stride: int,
    depthwise: bool,
    size: tuple[int, int],
    seed: int,
    before: QuantParams,
    after: QuantParams,
    joined: QuantParams,
    total: QuantParams,
) -> None:
    """Odd sizes, grids that clip nearly everything or nothing, zero points at both ends."""
    model = network(channels, kernel, stride, depthwise, size, seed)
    ranges = {
        name: Range(-quant.zero_point * quant.scale, (255 - quant.zero_point) * quant.scale, "chosen")
        for name, quant in {"a": before, "a.act": after, "b.act": joined, "sum": total}.items()
    }
    images = image_set(Spec(64, 64), [portrait()], "unused")
    calibrated = Calibration(model, read_recipe("fast"), images, ranges, {}, {}, 0)
    graph = lower_tflite(quantise(calibrated, Spec()), calibrated.quant_params)
    assert graph.float_operators == 0
    assert_equal_everywhere(graph, [np.random.default_rng(seed).integers(0, 256, (1, *size, 3), np.uint8)])


@settings(max_examples=200)
@given(before=quant_params, after=quant_params, slope=st.floats(2.0**-7, 1.0, width=32))
@example(before=QuantParams(0.015, 128), after=QuantParams(0.01, 100), slope=float(np.float32(0.1)))
def test_leaky_relu_of_every_value_is_equal(before: QuantParams, after: QuantParams, slope: float) -> None:
    graph = elementwise("LEAKY_RELU", [before], after, {"alpha": slope}, 256)
    assert_equal_everywhere(graph, [INT8.reshape(1, -1, 1, 1)])


@settings(max_examples=60)
@given(first=quant_params, second=quant_params, total=quant_params)
def test_the_sum_of_every_pair_is_equal(first: QuantParams, second: QuantParams, total: QuantParams) -> None:
    graph = elementwise("ADD", [first, second], total, {"fusedActivationFunction": 0}, 65536)
    left, right = (side.reshape(1, -1, 1, 1) for side in np.meshgrid(INT8, INT8))
    assert_equal_everywhere(graph, [np.ascontiguousarray(left), np.ascontiguousarray(right)])


@settings(max_examples=40)
@given(first=quant_params, second=quant_params, total=quant_params, activation=st.sampled_from([RELU, RELU6]))
def test_the_sum_of_every_pair_is_equal_between_the_bounds_of_its_activation(
    first: QuantParams, second: QuantParams, total: QuantParams, activation: int
) -> None:
    graph = elementwise("ADD", [first, second], total, {"fusedActivationFunction": activation}, 65536)
    left, right = (side.reshape(1, -1, 1, 1) for side in np.meshgrid(INT8, INT8))
    assert_equal_everywhere(graph, [np.ascontiguousarray(left), np.ascontiguousarray(right)])


@settings(max_examples=80)
@given(form=RESIDUAL_FORMS, given_quant_params=st.fixed_dictionaries(dict.fromkeys(RESIDUAL_VALUES, quant_params)))
def test_residual_networks_of_any_form_and_grid_are_equal(
    form: ResidualForm, given_quant_params: dict[str, QuantParams]
) -> None:
    """Pools, dilated convolutions, sums and clips, on grids that clip nearly everything or nothing."""
    graph = lower_tflite(residual_network(form, given_quant_params), given_quant_params)
    assert graph.float_operators == 0
    image = np.random.default_rng(form.seed).integers(0, 256, (1, *form.size, 3), np.uint8)
    assert_equal_everywhere(graph, [image])


@settings(max_examples=60)
@given(
    kind=st.sampled_from(["MAX_POOL_2D", "AVERAGE_POOL_2D"]),
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    same=st.booleans(),
    quant=quant_params,
    seed=st.integers(0, 99),
)
def test_pools_are_equal(
    kind: str,
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    same: bool,
    quant: QuantParams,
    seed: int,
) -> None:
    """Means of stored integers, halves away from 0, of what is inside the picture alone."""
    shape = tuple(-(-n // s) if same else (n - k) // s + 1 for n, k, s in zip(size, kernel, strides, strict=True))
    quantisation = Quantisation((quant.scale,), (quant.zero_point - 128,))
    tensors = [Tensor(n, np.dtype(np.int8), (1, *s, 2), quantisation) for n, s in (("in", size), ("out", shape))]
    options = {
        "padding": 0 if same else 1,
        "strideH": strides[0],
        "strideW": strides[1],
        "filterHeight": kernel[0],
        "filterWidth": kernel[1],
        "fusedActivationFunction": 0,
    }
    graph = Graph(tensors, [Operator(kind, (0,), (1,), options)], [0], [1])
    assert_equal_everywhere(graph, [np.random.default_rng(seed).integers(-128, 128, (1, *size, 2), np.int8)])


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    factors=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    aligned=st.booleans(),
    quant=quant_params,
    seed=st.integers(0, 99),
)
def test_bilinear_enlargements_are_equal(
    size: tuple[int, int], factors: tuple[int, int], aligned: bool, quant: QuantParams, seed: int
) -> None:
    """On the integers as they are stored, halves away from 0; LiteRT's own kernels compute the same."""
    graph = enlargement(size, factors, aligned, quant)
    values = assert_equal_everywhere(
        graph, [np.random.default_rng(seed).integers(-128, 128, (1, *size, 2), dtype=np.int8)]
    )
    (layer,) = compare_litert(graph, values, "builtin")
    assert layer.within(0) == 1.0


@pytest.mark.parametrize(("aligned", "most"), [(True, 2), (False, 1)])
def test_xnnpack_enlarges_within_steps_of_the_reference(aligned: bool, most: int) -> None:
    """The reference counts places in 1/1024 pixels, and with aligned corners the error adds up along a row."""
    graph = enlargement((16, 20), (2, 2), aligned, QuantParams(0.05, 128))
    rows, columns = np.mgrid[-1:1:16j, -1:1:20j]
    smooth = np.stack([100 * np.sin(3 * rows + columns), 100 * np.cos(2 * columns)], axis=-1)
    (layer,) = compare_litert(graph, evaluate(graph, [smooth[np.newaxis].astype(np.int8)]), "xnnpack")
    assert layer.ran == "delegate"
    assert layer.within(most) == 1.0


def enlargement(size: tuple[int, int], factors: tuple[int, int], aligned: bool, quant: QuantParams) -> Graph:
    """One bilinear operator on int8."""
    after = tuple(side * factor for side, factor in zip(size, factors, strict=True))
    quantisation = Quantisation((quant.scale,), (quant.zero_point - 128,))
    given, made = (Tensor(n, np.dtype(np.int8), (1, *s, 2), quantisation) for n, s in (("in", size), ("out", after)))
    constant = Tensor("size", np.dtype(np.int32), (2,), None, np.array(after, np.int32))
    options = {"alignCorners": aligned, "halfPixelCenters": not aligned}
    return Graph([given, constant, made], [Operator("RESIZE_BILINEAR", (0, 1), (2,), options)], [0], [2])


@given(value=st.integers(-(2**24), 2**24), factor=st.floats(2.0**-20, 16.0))
@example(value=-3, factor=0.5)
@example(value=3, factor=0.5)
@example(value=-1, factor=1.5)
def test_rescaling_rounds_twice_as_defined(value: int, factor: float) -> None:
    """The definition in rational numbers: to a multiple of 2^−right halves up, then to a whole number away from 0."""
    shift = math.frexp(factor)[1]
    integer = Fraction(factor) * 2 ** (31 - shift)
    rounded = Fraction(math.floor(integer + Fraction(1, 2)), 2**31)
    left, right = max(shift, 0), max(-shift, 0)
    once = math.floor(value * 2**left * rounded + Fraction(1, 2))
    twice = math.floor(Fraction(abs(once), 2**right) + Fraction(1, 2)) * (1 if once >= 0 else -1)
    assert int(rescale(np.array(value, np.int64), multiplier(factor))) == twice


def test_rescaling_is_within_rounding_of_the_real_product() -> None:
    values = np.random.default_rng(0).integers(-(2**22), 2**22, 20_000)
    for factor in (1e-4, 0.00390625, 0.1, 0.9999999, 1.5, 3.0):
        error = rescale(values, multiplier(factor)) - values * factor
        assert np.abs(error).max() <= 0.5 + 2.0 ** math.frexp(factor)[1] + 1e-2


def test_a_factor_too_small_for_the_form_is_zero() -> None:
    tiny = multiplier(np.array([2.0**-40, 2.0**-3]))
    assert tiny.value.tolist() == [0, 2**30]
    assert rescale(np.array([1 << 20, 1 << 20]), tiny).tolist() == [0, 1 << 17]


def test_what_the_reference_does_not_compute_is_named(
    fp32: onnx.ModelProto, int8: onnx.ModelProto, calibration: Calibration, spec: Spec
) -> None:
    image = np.zeros(spec.input_shape, np.uint8)
    with pytest.raises(ReferenceError, match=r"operator CAST of .*no integer reference; it computes float32"):
        evaluate(lower_tflite(fp32, {}), [image])
    with pytest.raises(ReferenceError, match=r"input 'image' has shape \(1, 2, 2, 3\)"):
        evaluate(lower_tflite(int8, calibration.quant_params), [np.zeros((1, 2, 2, 3), np.uint8)])
