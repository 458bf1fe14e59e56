"""The quantised model: an ONNX graph of the FP32 operations between QuantizeLinear and DequantizeLinear (QDQ).

What is quantised, and how:
- the input needs no quantisation: it is uint8, and its per-channel zero point is the mean colour, which is exact. What
  is left of a mean that is not a whole number goes into the bias of the first convolution;
- weights are int8, symmetric, a scale for each output channel; biases are int32 in steps of input scale × weight scale;
- every activation is uint8 with one scale and zero point; the parts of a concatenation share theirs;
- the values between a convolution or a sum and its activation, and the outputs, stay float here: a backend that
  needs them as integers (TFLite) takes their quantisation parameters from the same calibration.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from retinaface_edge.runtime.errors import RetinaFaceEdgeError
from retinaface_edge.runtime.ops.quantization import QuantParams
from retinaface_edge.runtime.spec import Contract, Spec

from .calibrate import MOVES, Calibration
from .gptq import round_together
from .graph.image_front import image_front
from .graph.onnx_graph import (
    ACTIVATIONS,
    FUSED_ACTIVATIONS,
    add_constant,
    constant_of,
    insert_before,
    name_of,
    new_node,
    only_reader,
    read_graph,
    result_of,
    to_proto,
)
from .kernel_parity import weight_scales


class QuantisationError(RetinaFaceEdgeError):
    """A graph that cannot be quantised here."""


def quantise(calibration: Calibration, spec: Contract) -> onnx.ModelProto:
    """The QDQ model of a calibrated FP32 model.

    Layers that the recipe keeps float have float weights, and what they alone read stays float. Raises
    `QuantisationError` when the graph does not begin with mean subtraction, or a convolution's input is not quantised.
    """
    recipe, quant_params = calibration.recipe, calibration.quant_params
    model = read_graph(calibration.model)
    graph = model.graph
    scales: dict[str, NDArray[np.float32]] = {}
    """The scale of every value that holds integers by then; the image has 1."""
    if isinstance(spec, Spec):
        scales[_input_as_integers(graph)] = np.ones(1, np.float32)
    nodes = [node for node in graph if result_of(node) not in scales]
    integer_layers = {node for node in nodes if node.op_type == "Conv" and not recipe.is_float(node.name or "")}
    wanted = _read_as_integers(nodes, integer_layers)
    for node in nodes:
        value = node.outputs[0]
        name, source = result_of(node), name_of(node.inputs[0])
        if node in integer_layers:
            _quantise_weights(graph, node, scales, quant_params.get(_result(node)), calibration)
        computes = node.op_type in ("Conv", "Add", *ACTIVATIONS)
        if (computes or source == spec.input_name) and value in wanted:
            if name not in quant_params:
                raise QuantisationError(f"the value {name} of type {node.op_type} has no quantisation parameters")
            quantised = _quantise_value(graph, node, quant_params[name])
            scales[quantised] = np.array([quant_params[name].scale], np.float32)
        elif node.op_type in ("Concat", *MOVES) and source in scales:
            scales[name] = scales[source]
    for unused in [name for name, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[unused]
    quantised_model = to_proto(model)
    onnx.checker.check_model(quantised_model, full_check=True)
    return quantised_model


def _read_as_integers(nodes: Sequence[ir.Node], integer_layers: Set[ir.Node]) -> set[ir.Value]:
    """Values that an integer convolution reads, or that an operation without weights passes on to one.

    An activation of a sum passes on as well: the terms are quantised, and the sum in between is not.
    """
    wanted: set[ir.Value] = set()
    activated: set[ir.Value] = set()
    for node in reversed(nodes):
        result, inputs = node.outputs[0], [value for value in node.inputs if value is not None]
        if node in integer_layers or (node.op_type in MOVES and result in wanted):
            wanted.update(inputs[:1])
        elif node.op_type in ("Add", "Concat") and (result in wanted or result in activated):
            wanted.update(inputs)
        elif node.op_type in ACTIVATIONS and result in wanted:
            activated.add(inputs[0])
    return wanted


def _result(convolution: ir.Node) -> str:
    """The value that an integer kernel writes: the one after an activation that it applies itself."""
    reader = only_reader(convolution.outputs[0])
    return result_of(reader if reader is not None and reader.op_type in FUSED_ACTIVATIONS else convolution)


def _input_as_integers(graph: ir.Graph) -> str:
    """Cast and mean subtraction become one DequantizeLinear: real = pixel − mean is scale 1 and zero point mean.

    For a mean with a fraction, the nearest whole number is subtracted from the pixels, and the rest from the bias:
    exact inside the image, and at its border half a grey level off at most, since what is padded is a pixel too.
    """
    front = image_front(graph)
    if front is None or front.nodes[0].op_type != "Cast":
        raise QuantisationError("the graph does not begin with the mean subtraction; export it with this project")
    *before, transpose = front.nodes
    rounded = np.rint(front.mean)
    if np.any((rounded < 0) | (rounded > 255)):
        raise QuantisationError(f"the mean {front.mean.tolist()} is not a colour that a pixel can have")
    if not front.has_uint8_mean:
        _add_to_bias(graph, front.convolution, rounded - front.mean)
    image, centred = before[0].inputs[0], name_of(before[-1].outputs[0])
    scale = add_constant(graph, "image.scale", np.ones(len(rounded), np.float32))
    zero_point = add_constant(graph, "image.zero_point", rounded.astype(np.uint8))
    node = new_node("DequantizeLinear", [image, scale, zero_point], centred, "image.dequantise", {"axis": 3})
    insert_before(before[0], node)
    transpose.replace_input_with(0, node.outputs[0])
    for replaced in reversed(before):
        graph.remove(replaced, safe=True)
    return centred


def _add_to_bias(graph: ir.Graph, convolution: ir.Node, shift: NDArray[np.float64]) -> None:
    """Have the convolution compute what it would for an input with `shift` (channels,) added."""
    kernel, bias = constant_of(convolution, 1).astype(np.float64), constant_of(convolution, 2).astype(np.float64)
    shifted = bias + np.einsum("oihw,i->o", kernel, shift)
    value = add_constant(graph, f"{name_of(convolution.inputs[2])}.shifted", shifted.astype(np.float32))
    convolution.replace_input_with(2, value)


def _quantise_weights(
    graph: ir.Graph,
    node: ir.Node,
    scales: dict[str, NDArray[np.float32]],
    result: QuantParams | None,
    calibration: Calibration,
) -> None:
    """Weights and bias as integers; where the scale of the result is known, on scales that kernels agree on."""
    source, weight, biases = name_of(node.inputs[0]), constant_of(node, 1), constant_of(node, 2)
    if source not in scales:
        raise QuantisationError(f"the input {source} of {node.name} has no quantisation parameters")
    limit = calibration.recipe.weight_limit
    span = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    # A channel of zeros, or one so small that its bias would not fit 32 bits, gets a scale that is just large enough.
    least = np.maximum(np.abs(biases) / (scales[source] * 2.0**30), np.float32(2.0**-40))
    scale = np.maximum(span / limit, least).astype(np.float32)
    if result is not None:
        scale = weight_scales(scale, float(scales[source][0]), result.scale)
    if node.name in calibration.products:
        product = calibration.products[node.name or ""]
        integers = round_together(weight.astype(np.float64), scale.astype(np.float64), product, limit)
    else:
        integers = np.clip(np.rint(weight / scale[:, None, None, None]), -limit, limit).astype(np.int8)
    steps = (scale * scales[source]).astype(np.float32)
    _replace_constant(graph, node, 1, integers, scale)
    _replace_constant(graph, node, 2, np.rint(biases.astype(np.float64) / steps).astype(np.int32), steps)


def _replace_constant(
    graph: ir.Graph, node: ir.Node, position: int, integers: NDArray[np.generic], scale: NDArray[np.float32]
) -> None:
    """Have the node read a DequantizeLinear of `integers` in place of the initialiser at that position."""
    replaced = node.inputs[position]
    name = name_of(replaced)
    if replaced is not None and len(replaced.uses()) == 1:
        node.replace_input_with(position, None)
        del graph.initializers[name]
    else:  # other layers read it too, and may read it in other steps
        name = f"{node.name}.{'weight' if position == 1 else 'bias'}.own"
    inputs = [
        add_constant(graph, f"{name}.integers", integers),
        add_constant(graph, f"{name}.scale", scale),
        add_constant(graph, f"{name}.zero_point", np.zeros(scale.shape, integers.dtype)),
    ]
    dequantise = new_node("DequantizeLinear", inputs, name, f"{name}.dequantise", {"axis": 0})
    insert_before(node, dequantise)
    node.replace_input_with(position, dequantise.outputs[0])


def _quantise_value(graph: ir.Graph, node: ir.Node, quant: QuantParams) -> str:
    """Put the pair behind a node, for all that reads it; gives the name of the value after it."""
    value = node.outputs[0]
    name, uses = name_of(value), list(value.uses())
    parameters = [
        add_constant(graph, f"{name}.scale", np.array(quant.scale, np.float32)),
        add_constant(graph, f"{name}.zero_point", np.array(quant.zero_point, np.uint8)),
    ]
    quantise = new_node("QuantizeLinear", [value, *parameters], f"{name}.integers", f"{name}.quantise")
    inputs = [quantise.outputs[0], *parameters]
    dequantise = new_node("DequantizeLinear", inputs, f"{name}.quantised", f"{name}.dequantise")
    graph.insert_after(node, [quantise, dequantise])
    for reader, position in uses:
        reader.replace_input_with(position, dequantise.outputs[0])
    return name_of(dequantise.outputs[0])
