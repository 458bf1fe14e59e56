"""How much work a network is: the multiply–accumulates of one frame."""

from __future__ import annotations

import math

import onnx

from retinaface_edge.calibration.graph.onnx_graph import constant_of, read_graph, result_of
from retinaface_edge.calibration.graph.session import inferred_shapes


def multiply_accumulates(model: onnx.ModelProto) -> int:
    """Of all convolutions: output elements times weights of one output channel. Padding counts as work done.

    Activations, additions and resizing are a hundredth of it and left out, as is usual.
    """
    shapes = inferred_shapes(model)
    return sum(
        math.prod(shapes[result_of(node)]) * math.prod(constant_of(node, 1).shape[1:])
        for node in read_graph(model).graph
        if node.op_type == "Conv"
    )
