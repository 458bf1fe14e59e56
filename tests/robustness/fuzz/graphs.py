"""Small ONNX graphs that hold every operation of the lowering, for the fuzzer to damage."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parents[2]))

from oracles.networks import RESIDUAL_VALUES, ResidualForm, residual_network

from retinaface_edge.runtime.ops.postprocess import QuantParams

QUANT_PARAMS = {name: QuantParams(0.04, 0 if name in ("stem", "left", "total") else 128) for name in RESIDUAL_VALUES}


def residual(quantised: bool) -> onnx.ModelProto:
    """Convolutions, a pool, clips, a sum, a split, a concatenation and a resize; FP32 or QDQ."""
    return residual_network(ResidualForm(size=(10, 8), relu6=True, dilation=2), QUANT_PARAMS if quantised else None)


def others() -> onnx.ModelProto:
    """What a residual network lacks: means, factors, cuts, normalisation of groups in both its forms."""
    node = helper.make_node
    nodes = [
        node("Transpose", ["image"], ["x"], "x", perm=[0, 3, 1, 2]),
        node("AveragePool", ["x"], ["mean"], "mean", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        node("Conv", ["mean", "w", "b"], ["conv"], "conv"),
        node("Mul", ["conv", "factor"], ["scaled"], "scaled"),
        node("Reshape", ["scaled", "groups"], ["grouped"], "grouped"),
        node("InstanceNormalization", ["grouped", "ones", "zeros"], ["normal"], "normal"),
        node("Reshape", ["normal", "back"], ["normalised"], "normalised"),
        node("Div", ["normalised", "factor"], ["divided"], "divided"),
        node("Add", ["divided", "factor"], ["added"], "added"),
        node("Relu", ["added"], ["activation"], "activation"),
        node("GroupNormalization", ["activation", "scale", "shift"], ["again"], "again", num_groups=2),
        node("Slice", ["again", "start", "end", "axis", "step"], ["cut"], "cut"),
        node("Upsample", ["cut", "scales"], ["large"], "large", mode="nearest"),
        node("Transpose", ["large"], ["out"], "out", perm=[0, 2, 3, 1]),
        node("Reshape", ["out", "flat"], ["rows"], "rows"),
    ]
    constants = {
        "w": np.ones((4, 3, 1, 1), np.float32),
        "b": np.ones(4, np.float32),
        "factor": np.full((1, 4, 1, 1), 2.0, np.float32),
        "groups": np.array([0, 2, -1]),
        "ones": np.ones(2, np.float32),
        "zeros": np.zeros(2, np.float32),
        "back": np.array([1, 4, 4, 3]),
        "scale": np.ones(4, np.float32),
        "shift": np.ones(4, np.float32),
        "start": np.array([1]),
        "end": np.array([3]),
        "axis": np.array([1]),
        "step": np.array([1]),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "flat": np.array([1, -1, 2]),
    }
    graph = helper.make_graph(
        nodes,
        "others",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 8, 6, 3])],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph)
