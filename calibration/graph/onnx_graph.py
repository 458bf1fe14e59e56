"""ONNX models as graphs whose values know what produces and what reads them (`onnx_ir`), and back to the byte."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from retinaface_edge.runtime.errors import RetinaFaceEdgeError

ACTIVATIONS = ("Relu", "Clip", "LeakyRelu")
FUSED_ACTIVATIONS = ("Relu", "Clip")
"""Activations that an integer operator applies to its sums, so that the value before them is never quantised."""


class GraphError(RetinaFaceEdgeError, ValueError):
    """A model that does not follow ONNX's own rules, so that no graph can be made of it."""


def read_graph(model: onnx.ModelProto) -> ir.Model:
    """The model as a graph, a copy that shares nothing with `model`. Raises `GraphError`."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    try:
        return ir.from_proto(copied)
    except Exception as error:  # a damaged file raises whatever its damage leads to
        raise GraphError(f"the graph is malformed ({error!r}); export the model again") from error


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """What `read_graph` read, to the byte where nothing was changed.

    `onnx_ir` alone drops empty strings, and writes down the types of values, which follow from the operations.
    """
    written = ir.to_proto(model)
    graph = model.graph
    del written.graph.value_info[:]
    if model.producer_version == "":
        written.producer_version = ""
    pairs: Iterable[tuple[Any, Any]] = (
        (model, written),
        (graph, written.graph),
        *zip(graph.inputs, written.graph.input, strict=True),
        *zip(graph.outputs, written.graph.output, strict=True),
        *zip(graph, written.graph.node, strict=True),
    )
    for source, target in pairs:
        if source.doc_string == "":
            target.doc_string = ""
    return written


def name_of(value: ir.Value | None) -> str:
    """The name of a value; empty for an input that was left out."""
    return (value.name or "") if value is not None else ""


def input_of(node: ir.Node, position: int) -> ir.Value | None:
    """The value that a node reads at that position; None where it reads none."""
    return node.inputs[position] if position < len(node.inputs) else None


def result_of(node: ir.Node) -> str:
    """The name of a node's first output."""
    return name_of(node.outputs[0])


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """The array of an initialiser or of a `Constant` node; None of anything else."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else array_of(tensor)


def array_of(tensor: ir.TensorProtocol) -> NDArray[Any]:
    """The numbers of a tensor. Raises `ValueError` for one that contradicts itself."""
    try:
        return tensor.numpy()
    except AssertionError as error:  # onnx_ir asserts that a tensor's type fits the field that its numbers are in
        raise ValueError(f"the tensor {tensor.name!r} contradicts itself ({error})") from error


def constant_of(node: ir.Node, position: int) -> NDArray[Any]:
    """The constant that a node reads at that position. Raises `ValueError` where it reads none."""
    array = constant(input_of(node, position))
    if array is None:
        raise ValueError(f"input {position} of node {node.name!r} of type {node.op_type} is not a constant")
    return array


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """The Python value of an attribute, or `default` where the node has none."""
    found = node.attributes.get(name)
    return default if found is None else (list(found.value) if isinstance(found.value, tuple) else found.value)


def only_reader(value: ir.Value) -> ir.Node | None:
    """The node that alone reads a value, which is not an output of the graph; else None."""
    readers = value.consumers()
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def is_depthwise(convolution: ir.Node) -> bool:
    """Whether each output channel of a convolution reads one input channel."""
    return int(attribute(convolution, "group", 1)) > 1 and constant_of(convolution, 1).shape[1] == 1


def is_grouped(convolution: ir.Node) -> bool:
    """Whether a convolution has groups of more than one channel."""
    return int(attribute(convolution, "group", 1)) > 1 and constant_of(convolution, 1).shape[1] > 1


def add_constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """Append an initialiser of that name."""
    tensor = ir.tensor(np.asarray(array), name=name)
    value = ir.Value(name=name, const_value=tensor)
    graph.initializers.add(value)
    return value


def new_node(
    operator: str, inputs: Sequence[ir.Value | None], output: str, name: str, attributes: dict[str, Any] | None = None
) -> ir.Node:
    """A node with one output, in no graph yet."""
    return ir.node(operator, list(inputs), attributes, name=name, outputs=[ir.Value(name=output)])


def insert_before(node: ir.Node, added: ir.Node | Sequence[ir.Node]) -> None:
    """Put nodes into a node's graph, before it."""
    assert isinstance(node.graph, ir.Graph)
    node.graph.insert_before(node, added)
