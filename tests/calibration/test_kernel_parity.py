"""Scales on which kernels agree: the integers are those of fixed point and of float32, at every half."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from oracles.kernels import compare_litert
from oracles.litert import INT8, elementwise, litert
from oracles.reference import evaluate

from retinaface_edge.calibration.fixed_point import multiplier, rescale
from retinaface_edge.calibration.kernel_parity import (
    agreeing_sum,
    before_leaky_relu,
    leaky_relu_slope,
    negative_factor,
    weight_scales,
)
from retinaface_edge.runtime.ops.postprocess import QuantParams

scales = st.floats(2.0**-8, 0.25, width=32)


@given(source=scales, result=scales, least=st.lists(st.floats(2.0**-12, 2.0**-6, width=32), min_size=1, max_size=8))
def test_weight_scales_grow_a_little_and_every_sum_is_rounded_alike(
    source: float, result: float, least: list[float]
) -> None:
    given = np.array(least, np.float32)
    found = weight_scales(given, source, result)
    assert found.dtype == np.float32
    assert np.all(found >= given)
    for scale in found[found > given]:
        factor = np.float64(np.float32(source)) * np.float64(scale) / np.float64(np.float32(result))
        limit = min(int(127 / factor), 2**20)
        sums = np.arange(-limit, limit + 1)
        real = np.rint(sums.astype(np.float32) * (np.float32(source) * scale / np.float32(result)))
        np.testing.assert_array_equal(rescale(sums, multiplier(factor)), real)


def test_weight_scales_of_usual_layers_are_all_found_and_grow_by_a_percent_at_most() -> None:
    random = np.random.default_rng(0)
    given = np.exp(random.uniform(np.log(1e-3), np.log(4e-3), 500)).astype(np.float32)
    found = weight_scales(given, 0.03, 0.02)
    assert np.all(found > given)
    assert (found / given).mean() < 1.01
    assert (found / given).max() < 1.1


def test_channels_of_nearly_no_weight_agree_too() -> None:
    """Their sums count so many steps that float32 cannot hold the halves: fewer steps are as good, and exact."""
    given = np.array([1e-5, 1.6e-7, 1e-12], np.float32)
    found = weight_scales(given, 0.5, 0.02)
    steps = 0.02 / (0.5 * found.astype(np.float64))
    assert np.all((steps > 1000) & (steps < 4097))
    for scale in found:
        factor = np.float64(0.5) * np.float64(scale) / np.float64(np.float32(0.02))
        halves = np.outer(2 * np.arange(256) + 1, round(1 / factor)).ravel() // 2
        for sums in (halves - 1, halves, halves + 1, -halves - 1, -halves, -halves + 1):
            real = np.rint(sums.astype(np.float32) * (np.float32(0.5) * scale / np.float32(0.02)))
            np.testing.assert_array_equal(rescale(sums, multiplier(factor)), real)


def test_weight_scales_of_channels_that_use_little_of_the_range_are_all_found() -> None:
    """A thousandth to a hundred-thousandth of a step for each unit of the sum, as in the deep layers of a ResNet-18."""
    factor = np.exp(np.random.default_rng(0).uniform(np.log(1.5e-5), np.log(1e-3), 500))
    given = (factor * 0.02 / 0.03).astype(np.float32)
    found = weight_scales(given, 0.03, 0.02)
    assert np.all(found > given)
    # Coarser by a power of two, but never coarser than a usual channel.
    assert (found * 0.03 / 0.02).max() < 2e-3


@given(after=scales, units=st.integers(192, 600))
def test_the_scale_before_a_leaky_relu_is_never_below_its_ratio(after: float, units: int) -> None:
    before = before_leaky_relu(after, units)
    ratio = float(np.float32(before) / np.float32(after)) * 256
    assert units <= ratio <= units * (1 + 1e-6)
    assert before == float(np.float32(before))


def test_some_factors_agree_on_every_integer_and_most_do_not() -> None:
    reaches = {units: negative_factor(units)[1] for units in range(16, 64)}
    assert reaches[43] >= 128
    assert reaches[26] >= 128
    assert sum(reach >= 128 for reach in reaches.values()) == 2


def test_leaky_relu_on_such_a_grid_is_the_same_on_all_kernels() -> None:
    """Every value that the grid can hold, for slopes and ratios that calibration chooses."""
    for after, zero_point in ((0.011, 120), (0.0873, 100), (0.19, 60)):
        before = before_leaky_relu(after, 430)
        slope = leaky_relu_slope(before, after, 0.1)
        assert abs(slope - 0.1) < 0.002
        graph = elementwise(
            "LEAKY_RELU", [QuantParams(before, zero_point)], QuantParams(after, 25), {"alpha": slope}, 256
        )
        values = evaluate(graph, [INT8.reshape(1, -1, 1, 1)])
        np.testing.assert_array_equal(values[1], litert(graph, [values[0]])[1])
        for kernels in ("xnnpack", "builtin"):
            (layer,) = compare_litert(graph, values, kernels)
            assert layer.within(0) == 1.0
            assert layer.ran == ("delegate" if kernels == "xnnpack" else "own")


def test_the_slope_as_given_differs_on_xnnpack() -> None:
    """What the choice is for: with 0.1 and the same grids, an eighth of the negative values differs."""
    before = before_leaky_relu(0.05, 430)
    graph = elementwise(
        "LEAKY_RELU", [QuantParams(before, 128)], QuantParams(0.05, 25), {"alpha": float(np.float32(0.1))}, 256
    )
    (layer,) = compare_litert(graph, evaluate(graph, [INT8.reshape(1, -1, 1, 1)]), "xnnpack")
    assert layer.within(1) == 1.0
    assert 8 <= layer.counts[1] <= 24


def differing_pairs(first: QuantParams, second: QuantParams, result: QuantParams) -> int:
    """For how many pairs of integers XNNPACK itself gives another sum than the reference kernels."""
    graph = elementwise("ADD", [first, second], result, {"fusedActivationFunction": 0}, 65536)
    pairs = [np.ascontiguousarray(side.reshape(1, -1, 1, 1)) for side in np.meshgrid(INT8, INT8)]
    (layer,) = compare_litert(graph, litert(graph, pairs), "xnnpack")
    assert layer.ran == "delegate"
    return layer.elements - layer.counts[0]


def test_sums_on_the_grids_that_are_chosen_are_the_same_on_all_kernels() -> None:
    """For every pair of integers, on random grids; and what is not changed differs on none."""
    random = np.random.default_rng(0)
    changed = 0
    for _ in range(12):
        result = QuantParams(
            float(np.float32(np.exp(random.normal()))), int(random.integers(0, 2) * random.integers(1, 256))
        )
        first, second = (
            QuantParams(float(np.float32(result.scale * random.uniform(0.3, 1.2))), int(random.integers(0, 256)))
            for _ in range(2)
        )
        before = differing_pairs(first, second, result)
        chosen = agreeing_sum(first, second, result)
        if chosen == result:
            assert before == 0
            continue
        changed += 1
        assert before > 0
        assert differing_pairs(first, second, chosen) == 0
        assert chosen.zero_point == result.zero_point
        assert 1.0 < chosen.scale / result.scale < 1.02
    assert changed
