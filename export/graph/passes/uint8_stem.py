"""The first convolution on the image's own bytes: mean and padding move from the pixels into the graph's constants.

Before: bytes become floats, lose the mean, and zeros are padded around them: three passes over the largest tensor of
all, and in an INT8 graph a float convolution, since OpenVINO has no convolution whose input has a zero point a channel.
After: a row and a column of the mean colour, which is what zeros around centred pixels stand for, and a convolution of
bytes whose bias has lost Σ w·mean. Both compute the same numbers but for the rounding of floats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

PADDING = [1, 1, 1, 1]
ROW, COLUMN, PADDED, BYTES = "image.row", "image.column", "image.padded", "image.bytes"


def uint8_stem(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph of this project (its biases floats) in that form; the graph itself where it has no such stem.

    It starts with Cast and Sub, or DequantizeLinear, then Transpose and a padded convolution of stride 2 on even sides.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    conv = next((node for node in graph.node if node.op_type == "Conv"), None)
    if conv is None:
        return model
    front = _front(conv, producers)
    mean = _mean(front, constants)
    weights = _weights(conv, producers, constants)
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in conv.attribute}
    height, width = (d.dim_value for d in graph.input[0].type.tensor_type.shape.dim[1:3])
    padded = (list(attributes.get("pads", [])), list(attributes.get("strides", []))) == (PADDING, [2, 2])
    if mean is None or weights is None or not padded or height % 2 or width % 2 or conv.input[2] not in constants:
        return model
    bias = constants[conv.input[2]] - np.einsum("oihw,i->o", weights, mean.astype(np.float64))
    row, column = np.tile(mean, (1, 1, width, 1)), np.tile(mean, (1, height + 1, 1, 1))
    for name, value in ((ROW, row), (COLUMN, column), (f"{conv.name}.bias.bytes", bias.astype(np.float32))):
        graph.initializer.append(numpy_helper.from_array(value, name))
    quantised = conv.input[1] not in constants  # a stem that was left float computes with floats
    transpose = front[-1]
    for node in front:
        graph.node.remove(node)
    nodes = [
        helper.make_node("Concat", [ROW, "image"], [f"{PADDED}.above"], f"{PADDED}.above", axis=1),
        helper.make_node("Concat", [COLUMN, f"{PADDED}.above"], [PADDED], PADDED, axis=2),
    ]
    if quantised:
        graph.initializer.append(numpy_helper.from_array(np.array(1.0, np.float32), f"{BYTES}.scale"))
        graph.initializer.append(numpy_helper.from_array(np.array(0, np.uint8), f"{BYTES}.zero_point"))
        inputs = [PADDED, f"{BYTES}.scale", f"{BYTES}.zero_point"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, [BYTES], BYTES))
    else:
        nodes.append(helper.make_node("Cast", [PADDED], [BYTES], BYTES, to=onnx.TensorProto.FLOAT))
    nodes.append(helper.make_node("Transpose", [BYTES], list(transpose.output), transpose.name, perm=[0, 3, 1, 2]))
    for index, node in enumerate(nodes):
        graph.node.insert(index, node)
    conv.input[2] = f"{conv.name}.bias.bytes"
    next(attribute for attribute in conv.attribute if attribute.name == "pads").ints[:] = [0, 0, 0, 0]
    return changed


def _front(conv: onnx.NodeProto, producers: dict[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    """What lies between the image and the first convolution, in order."""
    front: list[onnx.NodeProto] = []
    value = conv.input[0]
    while value in producers and len(front) < 3:  # no front is longer; a damaged graph may run in a circle
        front.insert(0, producers[value])
        value = front[0].input[0]
    return front


def _mean(front: list[onnx.NodeProto], constants: dict[str, NDArray[Any]]) -> NDArray[np.uint8] | None:
    """The whole numbers that are subtracted from the channels; None if something else is done to the image."""
    kinds = [node.op_type for node in front]
    if kinds == ["Cast", "Sub", "Transpose"]:
        mean = constants.get(front[1].input[1])
    elif kinds == ["DequantizeLinear", "Transpose"] and np.all(constants[front[0].input[1]] == 1.0):
        mean = constants.get(front[0].input[2])
    else:
        return None
    if mean is None or mean.shape != (3,) or not np.array_equal(mean, mean.astype(np.uint8)):
        return None
    return np.asarray(mean.astype(np.uint8))


def _weights(
    conv: onnx.NodeProto, producers: dict[str, onnx.NodeProto], constants: dict[str, NDArray[Any]]
) -> NDArray[np.float64] | None:
    """The convolution's weights, dequantised where they are integers."""
    name = conv.input[1]
    if name in constants:
        return np.asarray(constants[name].astype(np.float64))
    node = producers.get(name)
    if node is None or node.op_type != "DequantizeLinear" or any(value not in constants for value in node.input[:2]):
        return None
    integers, scale = (constants[value].astype(np.float64) for value in node.input[:2])
    return np.asarray(integers * scale.reshape(-1, 1, 1, 1))
