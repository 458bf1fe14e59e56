"""The feature outputs of a QDQ graph as the integers that the heads read, for a backend that has no grids of its own.

Before: the features leave as floats, beside readers that want integers, and OpenVINO computes all that leads to the
concatenation in floats. After: a QuantizeLinear on the grid that its parts share changes no value, the backend leaves
it out, and the tensor that the heads read is the output: no copy, and a quarter of the bytes.
"""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper

from retinaface_edge.runtime.ops.postprocess import Grid


def integer_features(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Grid]]:
    """A copy of the graph whose outputs that are concatenations on one grid are uint8, with their grids by name.

    Concatenations that were left float stay so: a graph that is not quantised comes back as it was.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    grids: dict[str, Grid] = {}
    for output in graph.output:
        transpose = producers.get(output.name)
        concat = producers.get(transpose.input[0]) if transpose is not None else None
        if transpose is None or concat is None or concat.op_type != "Concat":
            continue
        parts = [producers.get(name) for name in concat.input]
        pairs = [part.input[1:] for part in parts if part is not None and part.op_type == "DequantizeLinear"]
        found = {Grid(float(constants[scale]), int(constants[zero_point])) for scale, zero_point in pairs}
        if len(pairs) < len(parts) or len(found) != 1:
            continue
        (grids[output.name],) = found
        integers = f"{output.name}.integers"
        quantise = helper.make_node("QuantizeLinear", [concat.output[0], *pairs[0]], [integers], integers)
        graph.node.insert(list(graph.node).index(transpose), quantise)
        transpose.input[0] = integers
        output.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    return changed, grids
