"""Small ONNX networks of the operations that can be lowered, with hypothesis strategies for their parameters."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper


def network(
    channels: int,
    kernel: int,
    stride: int,
    depthwise: bool,
    size: tuple[int, int],
    seed: int,
    factors: tuple[int, int] = (2, 2),
) -> onnx.ModelProto:
    """A small graph of the operations that can be lowered, in the form that the exporter writes."""
    random = np.random.default_rng(seed)
    height, width = size
    pad = kernel // 2
    out = [((side + 2 * pad - kernel) // stride + 1) * factor for side, factor in zip(size, factors, strict=True)]

    def conv(name: str, source: str, shape: list[int], group: int, step: int) -> list[onnx.NodeProto]:
        weights[f"{name}.w"] = random.normal(size=shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[1:])))
        weights[f"{name}.b"] = random.normal(size=shape[0]).astype(np.float32)
        side = shape[2] // 2
        return [
            helper.make_node(
                "Conv",
                [source, f"{name}.w", f"{name}.b"],
                [name],
                name,
                group=group,
                strides=[step, step],
                pads=[side] * 4,
            )
        ]

    weights = {
        "mean": np.array([104, 117, 123], np.float32),
        "scales": np.array([1, 1, *factors], np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["image"], ["cast"], "cast", to=TensorProto.FLOAT),
        node("Sub", ["cast", "mean"], ["sub"], "sub"),
        node("Transpose", ["sub"], ["nchw"], "nchw", perm=[0, 3, 1, 2]),
        *conv("a", "nchw", [channels, 3, 1, 1], 1, 1),
        node("LeakyRelu", ["a"], ["a.act"], "a.act", alpha=0.1),
        *conv(
            "b", "a.act", [channels, 1 if depthwise else channels, kernel, kernel], channels if depthwise else 1, stride
        ),
        node("Relu", ["b"], ["b.act"], "b.act"),
        node("Concat", ["b.act", "b.act"], ["cat"], "cat", axis=1),
        node(
            "Resize",
            ["cat", "", "scales"],
            ["up"],
            "up",
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        node("Add", ["up", "up"], ["sum"], "sum"),
        node("Transpose", ["sum"], ["out"], "out", perm=[0, 2, 3, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, *out, 2 * channels])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


NETWORKS = {
    "channels": st.integers(1, 9),
    "kernel": st.sampled_from([1, 3, 5]),
    "stride": st.integers(1, 3),
    "depthwise": st.booleans(),
    "size": st.tuples(st.integers(3, 17), st.integers(3, 17)),
    "seed": st.integers(0, 2**32 - 1),
}
