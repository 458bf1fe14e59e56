"""The layers of an FP32 ONNX graph: which values are compared, and from which others each is made.

A layer is an operation with what directly follows it and changes no meaning (an activation, or the transposition of an
output). Its value has the same name in every artifact that keeps names: the ONNX files and TFLite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import MeasurementError
from ..inference.network_under_test import NetworkUnderTest

if TYPE_CHECKING:
    import onnx_ir as ir

ACTIVATIONS = ("LeakyRelu", "Relu", "Clip", "PRelu", "HardSwish", "HardSigmoid", "Sigmoid")
"""Belong to the layer before them where nothing else reads it; otherwise they are layers of their own."""
OPERATIONS = ("Conv", "Add", "Concat", "Resize", "MaxPool", "AveragePool", *ACTIVATIONS)
FOLLOWERS = (*ACTIVATIONS, "Transpose")
DEPTHWISE = "depthwise"


@dataclass(frozen=True)
class Layer:
    """A layer of the FP32 graph: its name, its kind for people, its value, and the values that it reads.

    `weights` is the name of a convolution's weights and `groups` its number of groups; empty and 0 for other layers.
    `given_as` is the output that gives the value besides its readers, if one does: TFLite knows the value by that name.
    """

    name: str
    kind: str
    value: str
    reads: tuple[str, ...]
    is_output: bool
    weights: str = ""
    groups: int = 0
    given_as: str = ""

    @property
    def is_convolution(self) -> bool:
        """Whether the layer has weights."""
        return bool(self.weights)

    @property
    def is_depthwise(self) -> bool:
        """Whether every channel has a filter of its own."""
        return self.kind.startswith(DEPTHWISE)


def read_model(network: NetworkUnderTest, shapes: bool = False) -> ir.Model:
    """The graph of an ONNX artifact; with `shapes`, every value knows its own. Raises `MeasurementError`."""
    try:
        import onnx
        import onnx_ir
    except ImportError as error:
        raise MeasurementError(f"--layers needs {error.name}; run: pip install 'retinaface-edge[build]'") from error
    model = onnx.load_from_string(network.files[0])
    if shapes:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return onnx_ir.serde.deserialize_model(model)


def read_layers(network: NetworkUnderTest) -> list[Layer]:
    """The layers of an FP32 ONNX artifact, in the order in which they run."""
    layers: list[Layer] = []
    values: set[str] = set()
    absorbed: set[ir.Node] = set()
    for node in read_model(network).graph:
        reads = tuple(str(value.name) for value in node.inputs if value is not None and value.name in values)
        # What comes before the first convolution prepares the picture and is the same in every artifact.
        if node.op_type not in OPERATIONS or node in absorbed or not (reads or node.op_type == "Conv"):
            continue
        last, followers = _with_followers(node)
        absorbed.update(followers)
        weights, groups = _convolution(node)
        also = next((str(n.outputs[0].name) for n in last.consumers() if _is_output_transpose(n)), "")
        name = str(last.name)
        layers.append(
            Layer(str(node.name), _kind(node, groups), name, reads, last.is_graph_output(), weights, groups, also)
        )
        values.add(name)
    return layers


def _with_followers(node: ir.Node) -> tuple[ir.Value, list[ir.Node]]:
    """The value of the layer that begins with `node`, and the nodes that belong to it."""
    value, followers = node.outputs[0], []
    while not value.is_graph_output() and len(readers := value.consumers()) == 1:
        (reader,) = readers
        if reader.op_type not in FOLLOWERS:
            break
        followers.append(reader)
        value = reader.outputs[0]
    return value, followers


def _is_output_transpose(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and node.outputs[0].is_graph_output()


def _convolution(node: ir.Node) -> tuple[str, int]:
    """The name of a convolution's weights and its number of groups."""
    weights = node.inputs[1] if node.op_type == "Conv" else None
    return ("", 0) if weights is None else (str(weights.name), _attribute(node, "group", 1))


def _kind(node: ir.Node, groups: int) -> str:
    """For instance `depthwise 3x3`, `conv 3x3, dilation 2` or `maxpool`."""
    if node.op_type != "Conv":
        return node.op_type.lower()
    weights = node.inputs[1]
    per_group = weights.shape[1] if weights is not None and weights.shape is not None else 0
    name = "conv" if groups == 1 else DEPTHWISE if per_group == 1 else "grouped conv"
    size = "x".join(map(str, _attribute(node, "kernel_shape", ())))
    dilation = max(_attribute(node, "dilations", (1,)))
    return f"{name} {size}".strip() + (f", dilation {dilation}" if dilation > 1 else "")


def _attribute(node: ir.Node, name: str, default: Any) -> Any:
    return node.attributes[name].value if name in node.attributes else default
