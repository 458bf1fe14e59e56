"""An ONNX graph of any exporter, as the arrangement of its convolutions and their weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .checkpoint import CheckpointError
from .topology import ADD, CONCAT, INPUT, Kind, Topology, activation, convolution, pooling, upsampling

QUANTISED = {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "ConvInteger",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
}
TRANSPARENT = {"Identity", "Cast", "Dropout"}
SLOPE_PLACES = 4
"""Decimal places to which a slope is compared: exporters write 0.1 as a float32."""


@dataclass
class Layer:
    """One convolution of the file: its weights, and those of the batch norm that follows it."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    norm: tuple[NDArray[np.float32], ...] | None = None
    epsilon: float = 0.0


@dataclass
class OnnxNetwork:
    """What was read: the arrangement, its layers by key, and operators that no RetinaFace has."""

    topology: Topology = field(default_factory=Topology)
    layers: dict[str, Layer] = field(default_factory=dict)
    unknown: dict[int, str] = field(default_factory=dict)
    half: bool = False


def onnx_network(model: ModelProto, name: str) -> OnnxNetwork:
    """Read the graph; `name` is for messages.

    Raises `CheckpointError` for a quantised graph, and for weights that are not in the file or cannot be read.
    """
    if quantised := sorted({node.op_type for node in model.graph.node} & QUANTISED):
        raise CheckpointError(
            f"{name} is already quantised ({', '.join(quantised)}); give the float ONNX that it was made from: "
            "the build quantises it"
        )
    reader = _Reader(name)
    for tensor in model.graph.initializer:
        reader.constants[tensor.name] = reader.array(tensor)
    for value in model.graph.input:
        if value.name not in reader.constants:
            reader.values[value.name] = reader.network.topology.add(INPUT)
    for node in model.graph.node:
        reader.read(node)
    return reader.network


class _Reader:
    """Goes through the nodes once: `constants` are known arrays, `values` the step that each other value is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.network = OnnxNetwork()
        self.constants: dict[str, NDArray[Any]] = {}
        self.values: dict[str, int] = {}

    def array(self, tensor: TensorProto) -> NDArray[Any]:
        values = stored_array(tensor, self.name)
        if values.dtype == np.float16:
            self.network.half = True
        return values

    def read(self, node: NodeProto) -> None:
        settings = {item.name: item for item in node.attribute}
        if node.op_type == "Constant":
            if "value" in settings:
                self.constants[node.output[0]] = self.array(settings["value"].t)
            elif settings:
                self.constants[node.output[0]] = np.asarray(helper.get_attribute_value(next(iter(settings.values()))))
            return
        if node.op_type in TRANSPARENT and node.input and node.input[0] in self.constants:
            self.constants[node.output[0]] = self.constants[node.input[0]]
            return
        attributes = {key: helper.get_attribute_value(item) for key, item in settings.items()}
        if node.op_type == "Conv":
            step = self._convolution(node, attributes)
        elif node.op_type == "BatchNormalization":
            step = self._norm(node, attributes)
        else:
            step = self._other(node, attributes)
        for output in node.output:
            self.values[output] = step

    def _convolution(self, node: NodeProto, attributes: dict[str, Any]) -> int:
        weight, *bias = self._weights(node)
        strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
        pads = attributes.get("pads", [0, 0, 0, 0])
        square = {len(set(values)) for values in (strides, dilations, pads, weight.shape[2:])} == {1}
        if weight.ndim != 4 or not square or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            raise CheckpointError(f"{self.name} has a convolution that no RetinaFace has: {node.name!r}")
        group = int(attributes.get("group", 1))
        key = node.name or node.output[0]
        while key in self.network.layers:
            key += "_"
        kind = convolution(weight.shape, strides[0], pads[0], dilations[0], group)
        identity = hashlib.sha256(b"".join(part.tobytes() for part in (weight, *bias))).digest()
        index = self.network.topology.add(kind, (self.values[node.input[0]],), key, identity)
        if self.network.topology.steps[index].key == key:
            self.network.layers[key] = Layer(weight, bias[0] if bias else None)
        return index

    def _norm(self, node: NodeProto, attributes: dict[str, Any]) -> int:
        source = self.values[node.input[0]]
        key = self.network.topology.steps[source].key
        if key is None:
            raise CheckpointError(f"{self.name} has a batch norm that follows no convolution: {node.name!r}")
        layer, parts = self.network.layers[key], tuple(self._weights(node))
        if layer.norm is not None and any(not np.array_equal(a, b) for a, b in zip(layer.norm, parts, strict=True)):
            raise CheckpointError(f"{self.name} has two different batch norms after one convolution: {node.name!r}")
        layer.norm, layer.epsilon = parts, float(attributes.get("epsilon", 1e-5))
        return source

    def _other(self, node: NodeProto, attributes: dict[str, Any]) -> int:
        inputs = tuple(self.values[name] for name in node.input if name in self.values)
        constants = [self.constants[name] for name in node.input if name in self.constants]
        if node.op_type in TRANSPARENT or _does_nothing(node, attributes, constants):
            return inputs[0]
        kind = _kind(node, attributes, constants)
        topology = self.network.topology
        if kind is None:
            index = topology.add((node.op_type, len(topology.steps)), inputs)
            self.network.unknown[index] = node.op_type
            return index
        return topology.add(kind, inputs[:1] if kind[0] == "upsample" else inputs)

    def _weights(self, node: NodeProto) -> list[NDArray[np.float32]]:
        names = [name for name in node.input[1:] if name]
        if any(name not in self.constants for name in names):
            raise CheckpointError(
                f"{self.name} has a {node.op_type} whose weights are not stored in the file: {node.name!r}"
            )
        return [np.asarray(self.constants[name], np.float32) for name in names]


def stored_array(tensor: TensorProto, name: str) -> NDArray[Any]:
    """The values of a tensor that holds them itself: another file could be any file of the machine."""
    if tensor.data_location == tensor.EXTERNAL or tensor.external_data:
        raise CheckpointError(
            f"{name} keeps weights in another file; save it as one: onnx.save(onnx.load({name!r}), 'model.onnx')"
        )
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise CheckpointError(f"{name} has a tensor {tensor.name!r} that cannot be read ({error})") from error


def _does_nothing(node: NodeProto, attributes: dict[str, Any], constants: list[NDArray[Any]]) -> bool:
    """Multiplication by one, as RFB's scale is exported, and the change of layout of an NHWC input."""
    if node.op_type == "Mul" and len(constants) == 1:
        return bool(np.all(constants[0] == 1.0))
    return node.op_type == "Transpose" and attributes.get("perm") == [0, 3, 1, 2]


def _kind(node: NodeProto, attributes: dict[str, Any], constants: list[NDArray[Any]]) -> Kind | None:
    """What a node is to a RetinaFace; None for an operator that none has before its heads."""
    if node.op_type == "Relu":
        return activation("relu")
    if node.op_type in ("LeakyRelu", "PRelu"):
        slopes = constants[0] if constants else np.array(attributes.get("alpha", 0.01))
        slope = round(float(slopes.flat[0]), SLOPE_PLACES)
        return activation("leaky-relu") if slope == 0.1 and np.ptp(slopes) == 0.0 else None
    if node.op_type == "Clip":
        given = constants or [attributes.get("min", np.nan), attributes.get("max", np.nan)]
        bounds = [float(value) for value in given]
        return activation("relu6") if bounds == [0.0, 6.0] else None
    if node.op_type == "MaxPool":
        kernel, strides = attributes["kernel_shape"], attributes.get("strides", [1, 1])
        return pooling(kernel[0], strides[0], attributes.get("pads", [0])[0])
    if node.op_type in ("Upsample", "Resize"):
        return _upsampling(attributes)
    if node.op_type == "Add" and not constants:
        return ADD
    if node.op_type == "Concat" and attributes.get("axis") == 1:
        return CONCAT
    return None


def _upsampling(attributes: dict[str, Any]) -> Kind | None:
    """Which doubling of `Upsampling` a Resize or Upsample is; every usual form of nearest gives the same pixels."""
    mode = attributes.get("mode", b"nearest")
    coordinates = attributes.get("coordinate_transformation_mode", b"half_pixel")
    if mode == b"linear" and coordinates == b"align_corners":
        return upsampling("bilinear")
    return upsampling("nearest") if mode == b"nearest" and coordinates != b"align_corners" else None


def load_model(content: bytes, name: str) -> ModelProto:
    """Parse a serialised model. Raises `CheckpointError` when it is none."""
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_from_string(content)
    except (DecodeError, ValueError) as error:
        raise CheckpointError(f"{name} is not an ONNX model; give a RetinaFace checkpoint (.pth or .onnx)") from error
    if not model.graph.node:
        raise CheckpointError(f"{name} is not an ONNX model; give a RetinaFace checkpoint (.pth or .onnx)")
    return model
