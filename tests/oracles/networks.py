"""Small ONNX networks of the operations that can be lowered, with hypothesis strategies for their parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from retinaface_edge.calibration.kernel_parity import weight_scales
from retinaface_edge.runtime.ops.postprocess import QuantParams


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


def residual_network(form: ResidualForm, quant_params: Mapping[str, QuantParams] | None = None) -> onnx.ModelProto:
    """A stem, a pool, a residual sum of two convolutions and what a neck does with it; FP32, or QDQ on `quant_params`.

    `quant_params` has those of `RESIDUAL_VALUES`. Weights of a QDQ graph are integers on scales that kernels agree on.
    """
    made, channels = _Builder(form.seed, quant_params), form.channels
    made.image(form.size)
    activate = made.clip if form.relu6 else made.relu
    stem = activate(made.conv("stem", "nchw", (channels, 3, 3, 3), strides=[2, 2], pads=[1] * 4))
    if form.pools_negatives:
        stem = made.conv("linear", stem, (channels, channels, 1, 1))
    pool = made.node(form.pool, [stem], "pool", kernel_shape=[form.kernel] * 2, strides=[2, 2], pads=form.pads)
    made.scales["pool"] = made.scales[stem]
    groups = channels if form.depthwise else 1
    wide = (channels, channels // groups, 3, 3)
    side = [form.dilation] * 2
    left = activate(made.conv("left", pool, wide, dilations=side, pads=side * 2, group=groups))
    right = made.conv("right", left, (channels, channels, 1, 1))
    total = made.node("Add", [right, made.conv("shortcut", pool, (channels, channels, 1, 1))], "total")
    total = {"Relu": made.relu, "Clip": made.clip}.get(form.after_add, made.quant)(total)
    half = max(channels // 2, 1)
    made.weights["parts"] = np.array([half, channels - half], np.int64)
    if channels > 1:
        made.add("Split", [total, "parts"], ["part.a", "part.b"], "split", axis=1)
        total = made.node("Concat", ["part.b", "part.a"], "joined", axis=1)
    made.weights["upscales"] = np.array([1, 1, 2, 3], np.float32)
    up = made.node("Resize", [total, "", "upscales"], "up", mode="nearest", nearest_mode="floor", **ASYMMETRIC)
    made.add("Transpose", [up], ["out"], "out", perm=[0, 2, 3, 1])
    return made.model(form.size)


ASYMMETRIC = {"coordinate_transformation_mode": "asymmetric"}
RESIDUAL_VALUES = ("stem", "left", "linear", "right", "shortcut", "total")
"""The values of a residual network that have grids of their own; an activation is on that of what it activates."""


@dataclass(frozen=True)
class ResidualForm:
    """What may differ between residual networks."""

    channels: int = 4
    size: tuple[int, int] = (14, 10)
    pool: str = "MaxPool"
    kernel: int = 3
    pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    pools_negatives: bool = False
    dilation: int = 1
    depthwise: bool = False
    relu6: bool = False
    after_add: str = "Relu"
    seed: int = 0


RESIDUAL_FORMS = st.builds(
    ResidualForm,
    channels=st.integers(1, 6),
    size=st.tuples(st.integers(9, 18), st.integers(9, 18)),
    pool=st.just("MaxPool"),
    kernel=st.sampled_from([2, 3]),
    pads=st.tuples(*[st.integers(0, 1)] * 4),
    pools_negatives=st.booleans(),
    dilation=st.integers(1, 3),
    depthwise=st.booleans(),
    relu6=st.booleans(),
    after_add=st.sampled_from(["", "Relu", "Clip"]),
    seed=st.integers(0, 2**32 - 1),
)


class _Builder:
    """An ONNX graph in the making: float, or with a QuantizeLinear and DequantizeLinear behind each value."""

    def __init__(self, seed: int, quant_params: Mapping[str, QuantParams] | None) -> None:
        self.random = np.random.default_rng(seed)
        self.quant_params = quant_params
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {"low": np.float32(0), "high": np.float32(6)}  # type: ignore[dict-item]
        self.scales: dict[str, float] = {}

    def add(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], name: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, list(inputs), list(outputs), name, **attributes))

    def node(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self.add(kind, inputs, [name], name, **attributes)
        return name

    def image(self, size: tuple[int, int]) -> None:
        if self.quant_params is None:
            self.weights["mean"] = np.array([104, 117, 123], np.float32)
            self.node("Cast", ["image"], "cast", to=TensorProto.FLOAT)
            self.node("Sub", ["cast", "mean"], "centred")
        else:
            self.weights["mean"], self.weights["ones"] = np.array([104, 117, 123], np.uint8), np.ones(3, np.float32)
            self.node("DequantizeLinear", ["image", "ones", "mean"], "centred", axis=3)
        self.node("Transpose", ["centred"], "nchw", perm=[0, 3, 1, 2])
        self.scales["nchw"] = 1.0

    def conv(self, name: str, source: str, shape: tuple[int, ...], **attributes: Any) -> str:
        """A convolution, on its grid unless an activation comes next."""
        span = np.float32(1.0 / np.sqrt(np.prod(shape[1:])) / (64.0 if source == "nchw" else 1.0))
        weight, bias = (self.random.normal(size=n).astype(np.float32) for n in (shape, shape[0]))
        weight = weight * span
        if self.quant_params is None:
            self.weights[f"{name}.w"], self.weights[f"{name}.b"] = weight, bias
        else:
            least = np.maximum(np.abs(weight).reshape(len(weight), -1).max(axis=1) / 127, 1e-6).astype(np.float32)
            scale = weight_scales(least, self.scales[source], self.quant_params[name].scale)
            integers = np.clip(np.rint(weight / scale[:, None, None, None]), -127, 127).astype(np.int8)
            steps = (scale * np.float32(self.scales[source])).astype(np.float32)
            for part, values, by in (("w", integers, scale), ("b", np.rint(bias / steps).astype(np.int32), steps)):
                self.weights[f"{name}.{part}.integers"], self.weights[f"{name}.{part}.scale"] = values, by
                self.weights[f"{name}.{part}.zero"] = np.zeros(len(by), values.dtype)
                names = [f"{name}.{part}.{end}" for end in ("integers", "scale", "zero")]
                self.node("DequantizeLinear", names, f"{name}.{part}", axis=0)
        self.node("Conv", [source, f"{name}.w", f"{name}.b"], name, **attributes)
        return name if name in ("stem", "left") else self.quant(name)

    def relu(self, source: str) -> str:
        return self.quant(self.node("Relu", [source], f"{source}.activation"), source)

    def clip(self, source: str) -> str:
        return self.quant(self.node("Clip", [source, "low", "high"], f"{source}.activation"), source)

    def quant(self, name: str, quant_of: str = "") -> str:
        """The value quantised and dequantised; itself in a float graph."""
        if self.quant_params is None:
            self.scales[name] = 1.0
            return name
        quant = self.quant_params[quant_of or name]
        self.weights[f"{name}.scale"] = np.array(quant.scale, np.float32)
        self.weights[f"{name}.zero"] = np.array(quant.zero_point, np.uint8)
        self.node("QuantizeLinear", [name, f"{name}.scale", f"{name}.zero"], f"{name}.integers")
        value = self.node(
            "DequantizeLinear", [f"{name}.integers", f"{name}.scale", f"{name}.zero"], f"{name}.quantised"
        )
        self.scales[value] = quant.scale
        return value

    def model(self, size: tuple[int, int]) -> onnx.ModelProto:
        used = {name for node in self.nodes for name in node.input}
        graph = helper.make_graph(
            self.nodes,
            "residual",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *size, 3])],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, "h", "w", "c"])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in self.weights.items() if name in used],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model
