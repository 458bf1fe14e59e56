"""How much work a network is: the multiply–accumulates of one frame."""

from __future__ import annotations

import math

import onnx


def multiply_accumulates(model: onnx.ModelProto) -> int:
    """Of all convolutions: output elements times weights of one output channel. Padding counts as work done.

    Activations, additions and resizing are a hundredth of it and left out, as is usual.
    """
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.output)
    }
    weights = {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    return sum(
        math.prod(shapes[node.output[0]]) * math.prod(weights[node.input[1]][1:])
        for node in inferred.node
        if node.op_type == "Conv"
    )
