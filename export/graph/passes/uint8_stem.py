"""The first convolution on the image's own bytes: mean and padding move from the pixels into the graph's constants.

Before: bytes become floats, lose the mean, and zeros are padded around them: three passes over the largest tensor of
all, and in an INT8 graph a float convolution, since OpenVINO has no convolution with an input zero point per channel.
After: rows and columns of the mean colour, which is what zeros around centred pixels stand for, and a convolution of
bytes whose bias has lost Σ w·mean. Both compute the same numbers but for the rounding of floats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from retinaface_edge.calibration.graph.image_front import TO_NCHW, ImageFront, image_front
from retinaface_edge.calibration.graph.onnx_graph import (
    add_constant,
    attribute,
    constant,
    input_of,
    insert_before,
    new_node,
    result_of,
)

from .graph_pass import graph_pass

PADDED, BYTES = "image.padded", "image.bytes"
SIDES = (("image.row", "image.row.below"), ("image.column", "image.column.right"))
"""The names of the constants beside the image: above and below it, to its left and right."""


def stem_reads_bytes(model: ir.Model) -> str | None:
    """Nothing is subtracted from the pixels, and nothing padded around them."""
    return "the image still loses its mean" if _stem(model.graph) is not None else None


@graph_pass(ensures=[stem_reads_bytes])
def uint8_stem(model: ir.Model) -> ir.Model:
    """The graph in that form; the graph itself where it has no such stem.

    It begins as `image_front` says, with a mean that a pixel can have, and its first convolution has any kernel, stride
    and padding. Biases must be floats.
    """
    if _stem(model.graph) is None:
        return model
    changed = model.clone()
    graph = changed.graph
    stem = _stem(graph)
    assert stem is not None
    front, conv = stem.front, stem.front.convolution
    mean = front.mean.astype(np.uint8)
    bias = stem.bias - np.einsum("oihw,i->o", stem.weights, mean.astype(np.float64))
    nodes, padded = _padding(graph, stem, mean)
    add_bias = add_constant(graph, f"{conv.name}.bias.bytes", bias.astype(np.float32))
    if constant(conv.inputs[1]) is None:  # integer weights; a stem that was left float computes with floats
        scale = add_constant(graph, f"{BYTES}.scale", np.array(1.0, np.float32))
        zero_point = add_constant(graph, f"{BYTES}.zero_point", np.array(0, np.uint8))
        nodes.append(new_node("DequantizeLinear", [padded, scale, zero_point], BYTES, BYTES))
    else:
        nodes.append(new_node("Cast", [padded], BYTES, BYTES, {"to": int(ir.DataType.FLOAT)}))
    transpose = front.nodes[-1]
    name = result_of(transpose)
    transpose.outputs[0].name = f"{name}.replaced"
    nodes.append(new_node("Transpose", [nodes[-1].outputs[0]], name, transpose.name or name, {"perm": TO_NCHW}))
    insert_before(graph[0], nodes)
    conv.replace_input_with(0, nodes[-1].outputs[0])
    for node in reversed(front.nodes):
        graph.remove(node, safe=True)
    conv.replace_input_with(2, add_bias)
    conv.attributes["pads"] = ir.AttrInt64s("pads", [0, 0, 0, 0])
    return changed


@dataclass(frozen=True)
class _Stem:
    """The first convolution: weights and bias as float64, the image's shape, and what its windows reach around it.

    `padding` has, for height and width, the pixels before and after the image.
    """

    front: ImageFront
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    sizes: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]


def _stem(graph: ir.Graph) -> _Stem | None:
    front = image_front(graph)
    if front is None or not front.has_uint8_mean:
        return None
    conv, shape = front.convolution, graph.inputs[0].shape
    weights, bias = _weights(conv), constant(input_of(conv, 2))
    if weights is None or bias is None or shape is None or len(shape) != 4:
        return None
    height, width = shape[1], shape[2]
    if not isinstance(height, int) or not isinstance(width, int) or attribute(conv, "auto_pad", "NOTSET") != "NOTSET":
        return None
    sizes, pads = (height, width), attribute(conv, "pads", [0, 0, 0, 0])
    strides, dilations = attribute(conv, "strides", [1, 1]), attribute(conv, "dilations", [1, 1])
    sides = []
    for i in (0, 1):
        reach = (weights.shape[2 + i] - 1) * dilations[i] + 1
        outputs = (sizes[i] + pads[i] + pads[2 + i] - reach) // strides[i] + 1
        sides.append((pads[i], max((outputs - 1) * strides[i] + reach - pads[i] - sizes[i], 0)))
    if not np.any(front.mean) and not any(map(sum, sides)) and front.nodes[0].op_type == "Cast":
        return None  # it reads bytes already
    return _Stem(front, weights, bias.astype(np.float64), sizes, (sides[0], sides[1]))


def _padding(graph: ir.Graph, stem: _Stem, mean: NDArray[np.uint8]) -> tuple[list[ir.Node], ir.Value]:
    """Nodes that put the mean colour around the image, and their result."""
    value, height = graph.inputs[0], stem.sizes[0] + sum(stem.padding[0])
    added: list[list[ir.Value | None]] = []
    for axis, (names, amounts) in enumerate(zip(SIDES, stem.padding, strict=True)):
        shapes = [(1, amount, stem.sizes[1], 1) if axis == 0 else (1, height, amount, 1) for amount in amounts]
        added.append(
            [
                add_constant(graph, name, np.tile(mean, shape)) if amount else None
                for name, amount, shape in zip(names, amounts, shapes, strict=True)
            ]
        )
    nodes: list[ir.Node] = []
    columns = any(side is not None for side in added[1])
    for axis, (before, after) in enumerate(added, start=1):
        parts = [part for part in (before, value, after) if part is not None]
        if len(parts) > 1:
            name = f"{PADDED}.above" if axis == 1 and columns else PADDED
            nodes.append(new_node("Concat", parts, name, name, {"axis": axis}))
            value = nodes[-1].outputs[0]
    return nodes, value


def _weights(conv: ir.Node) -> NDArray[np.float64] | None:
    """The convolution's weights, dequantised where they are integers."""
    weights = constant(conv.inputs[1])
    if weights is not None:
        return weights.astype(np.float64)
    node = conv.inputs[1].producer() if conv.inputs[1] is not None else None
    if node is None or node.op_type != "DequantizeLinear":
        return None
    integers, scale = constant(input_of(node, 0)), constant(input_of(node, 1))
    if integers is None or scale is None:
        return None
    return np.asarray(integers.astype(np.float64) * scale.astype(np.float64).reshape(-1, 1, 1, 1))
