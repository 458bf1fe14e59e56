"""The biases of a QDQ graph as floats: OpenVINO's CPU plugin adds them so, and the IR is half as long."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from retinaface_edge.calibration.graph.onnx_graph import add_constant, constant, input_of, name_of

from .graph_pass import graph_pass


def biases_are_floats(model: ir.Model) -> str | None:
    """No int32 constant is dequantised."""
    left = [node.name for node in model.graph if _is_bias(node)]
    return f"the node {left[0]} dequantises a bias" if left else None


@graph_pass(ensures=[biases_are_floats])
def float_biases(model: ir.Model) -> ir.Model:
    """The graph with each bias dequantised already; other constants stay integers."""
    if biases_are_floats(model) is None:
        return model
    changed = model.clone()
    for node in list(changed.graph):
        integers, scale = constant(input_of(node, 0)), constant(input_of(node, 1))
        if _is_bias(node) and integers is not None and scale is not None:
            value, name = node.outputs[0], name_of(node.outputs[0])
            value.name = f"{name}.dequantised"
            floats = add_constant(changed.graph, name, integers.astype(np.float32) * scale)
            value.replace_all_uses_with(floats)
            changed.graph.remove(node, safe=True)
    return changed


def _is_bias(node: ir.Node) -> bool:
    integers = constant(input_of(node, 0)) if node.op_type == "DequantizeLinear" else None
    return integers is not None and integers.dtype == np.int32
