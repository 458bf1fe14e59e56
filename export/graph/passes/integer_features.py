"""The feature outputs of a QDQ graph as the integers that the heads read, for a backend that loses their scale.

Before: the features leave as floats, beside readers that want integers, and OpenVINO computes all that leads to the
concatenation in floats. After: a QuantizeLinear with the scale that its parts share changes no value, the backend
leaves it out, and the tensor that the heads read is the output: no copy, and a quarter of the bytes.
"""

from __future__ import annotations

import onnx_ir as ir

from retinaface_edge.calibration.graph.onnx_graph import constant, insert_before, name_of, new_node
from retinaface_edge.runtime.ops.quantization import QuantParams

from .graph_pass import graph_pass


@graph_pass()
def integer_features(model: ir.Model) -> ir.Model:
    """The graph whose outputs that are concatenations of one scale are uint8; `output_quant_params` gives
    their quantisation parameters.

    Concatenations that were left float stay so: a graph that is not quantised comes back as it was.
    """
    if not any(_joined(value) for value in model.graph.outputs):
        return model
    changed = model.clone()
    for output in changed.graph.outputs:
        joined = _joined(output)
        transpose = output.producer()
        if joined is None or transpose is None:
            continue
        integers = f"{name_of(output)}.integers"
        quantise = new_node("QuantizeLinear", [transpose.inputs[0], *joined], integers, integers)
        insert_before(transpose, quantise)
        transpose.replace_input_with(0, quantise.outputs[0])
        output.dtype = ir.DataType.UINT8
    return changed


def output_quant_params(model: ir.Model) -> dict[str, QuantParams]:
    """The quantisation parameters of the outputs that are integers, by name."""
    quant_params = {}
    for output in model.graph.outputs:
        transpose = output.producer()
        quantise = transpose.inputs[0].producer() if transpose is not None and transpose.inputs[0] is not None else None
        if quantise is not None and quantise.op_type == "QuantizeLinear":
            quant_params[name_of(output)] = _quant(quantise)
    return quant_params


def _joined(output: ir.Value) -> list[ir.Value | None] | None:
    """Scale and zero point of a concatenation, transposed to be that output, whose parts share them."""
    transpose = output.producer()
    concat = transpose.inputs[0].producer() if transpose is not None and transpose.inputs[0] is not None else None
    if concat is None or concat.op_type != "Concat":
        return None
    parts = [value.producer() if value is not None else None for value in concat.inputs]
    pairs = [part for part in parts if part is not None and part.op_type == "DequantizeLinear"]
    if len(pairs) < len(parts) or len({_quant(part) for part in pairs}) != 1:
        return None
    return list(pairs[0].inputs[1:])


def _quant(node: ir.Node) -> QuantParams:
    scale, zero_point = constant(node.inputs[1]), constant(node.inputs[2])
    assert scale is not None and zero_point is not None
    return QuantParams(float(scale), int(zero_point))
