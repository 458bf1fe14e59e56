"""Convolutions and pools of any size, stride, padding and dilation: every backend computes what ONNX Runtime does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.backends import assert_exact, between_transposes, names, node

from retinaface_edge.export.lower.tflite import LoweringError, lower_tflite

sides = st.tuples(st.integers(1, 3), st.integers(1, 3))
sizes = st.tuples(st.integers(5, 12), st.integers(5, 12))


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    """The attributes of a pool, padded by less than its kernel."""
    kernel = draw(sides)
    pads = tuple(draw(st.integers(0, min(2, kernel[axis % 2] - 1))) for axis in range(4))
    return {"kernel_shape": kernel, "strides": draw(sides), "pads": pads, "ceil_mode": draw(st.integers(0, 1))}


@settings(max_examples=80)
@given(size=sizes, window=windows(), rectified=st.booleans())
def test_a_largest_value_is_that_of_its_window(size: tuple[int, int], window: dict[str, Any], rectified: bool) -> None:
    pool = node("MaxPool", ["conv.activation" if rectified else "x"], **window)
    before = [node("Conv", ["x", "w", "b"], "conv"), node("Relu", ["conv"], "conv.activation")] if rectified else []
    constants = {"w": -np.eye(3, dtype=np.float32)[..., None, None], "b": np.zeros(3, np.float32)} if rectified else {}
    # All negative: padding with zeros would win.
    image = -1.0 - np.random.default_rng(0).random((1, *size, 3), np.float32)
    lowered = assert_exact(between_transposes([*before, pool], (*size, 3), constants), image, openvino_too=False)
    assert names(lowered).count("PAD") + names(lowered).count("PADV2") <= 1
    assert "PADV2" not in names(lowered) or not rectified


@settings(max_examples=80)
@given(size=sizes, window=windows(), counts=st.booleans())
def test_a_mean_is_that_of_its_window_or_refused(size: tuple[int, int], window: dict[str, Any], counts: bool) -> None:
    pool = node("AveragePool", ["x"], count_include_pad=int(counts), **window)
    model = between_transposes([pool], (*size, 3))
    try:
        lower_tflite(model, {})
    except LoweringError as error:
        assert any(window["pads"]) or window["ceil_mode"]
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
