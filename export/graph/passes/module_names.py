"""Names that people can read: convolutions after their modules, other nodes after what they do to which value."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from retinaface_edge.calibration.graph.onnx_graph import ACTIVATIONS, name_of

from .graph_pass import graph_pass, names_are_unique, weights_are_constants

SHORTENED = ((".conv.weight", ".weight"), (".conv.bias", ".bias"))


@graph_pass(requires=[weights_are_constants], ensures=[names_are_unique])
def module_names(model: ir.Model) -> ir.Model:
    """The graph with each convolution named after its module, and each value after the node that computes it.

    `backbone.stem` is the value before its activation, `backbone.stem.activation` the one after. Inputs and outputs of
    the graph keep their names.
    """
    changed = model.clone()
    graph = changed.graph
    _rename_initialisers(graph)
    taken: set[str] = set()
    for node in graph:
        source = name_of(node.inputs[0]) if node.inputs else ""
        if node.op_type == "Conv":
            name = name_of(node.inputs[1]).removesuffix(".weight")
        elif node.op_type in ACTIVATIONS:
            name = f"{source}.activation"
        else:
            name = f"{source}.{node.op_type.lower()}"
        while name in taken:
            name += "_"
        taken.add(name)
        node.name = name
        for value in node.outputs:
            if not value.is_graph_output():
                value.name = name
    return changed


def _rename_initialisers(graph: ir.Graph) -> None:
    """Without the wrapping module's name and that of the convolution inside its block; in the same order."""
    values = list(graph.initializers.values())
    graph.initializers.clear()
    taken: set[str] = set()
    for value in values:
        name = name_of(value).removeprefix("network.")
        for long, short in SHORTENED:
            name = name.replace(long, short)
        while name in taken:
            name += "_"
        taken.add(name)
        value.const_value = _named(value.const_value, name)
        value.name = name
        graph.initializers.add(value)


def _named(tensor: ir.TensorProtocol | None, name: str) -> ir.TensorProtocol | None:
    """The tensor under that name, as one of its own where it stands for part of a file that was read."""
    if isinstance(tensor, ir.TensorProtoTensor):
        copied = onnx.TensorProto()
        copied.CopyFrom(tensor.raw)
        copied.name = name
        return ir.TensorProtoTensor(copied)
    return tensor
