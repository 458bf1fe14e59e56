"""The quantised model: an ONNX graph of the FP32 operations between QuantizeLinear and DequantizeLinear (QDQ).

What is put on a grid, and where:
- the input needs no quantisation: it is uint8, and its per-channel zero point is the mean colour, which is exact;
- weights are int8, symmetric, a scale for each output channel; biases are int32 in steps of input scale × weight scale;
- every activation is uint8 with one scale and zero point; the parts of a concatenation share theirs;
- the values between a convolution and its activation, and the outputs, stay float here: a backend that needs them as
  integers (TFLite) takes their grids from the same calibration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from retinaface_edge.runtime.errors import RetinaFaceEdgeError
from retinaface_edge.runtime.ops.postprocess import Grid
from retinaface_edge.runtime.spec import Contract, Spec

from .calibrate import MOVES, Calibration
from .gptq import round_together
from .kernel_parity import weight_scales


class QuantisationError(RetinaFaceEdgeError):
    """A graph that cannot be quantised here."""


def quantise(calibration: Calibration, spec: Contract) -> onnx.ModelProto:
    """The QDQ model of a calibrated FP32 model.

    Layers that the recipe keeps float have float weights, and what they alone read stays float. Raises
    `QuantisationError` when the graph does not begin with mean subtraction, or a convolution's input has no grid.
    """
    model, recipe, grids = calibration.model, calibration.recipe, calibration.grids
    quantised = onnx.ModelProto()
    quantised.CopyFrom(model)
    graph = quantised.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    integer_layers = {n.name for n in model.graph.node if n.op_type == "Conv" and not recipe.is_float(n.name)}
    del graph.node[:], graph.initializer[:]
    kept = {name for node in model.graph.node if node.name not in integer_layers for name in node.input}
    graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in kept)

    start, nodes, renamed = "", list(model.graph.node), dict[str, str]()
    scales: dict[str, NDArray[np.float32]] = {}
    if isinstance(spec, Spec):
        start, nodes = _input_as_integers(model, spec, quantised)
        scales[start] = np.ones(1, np.float32)
    wanted = _read_as_integers(nodes, integer_layers)
    rectified = {node.input[0]: node.output[0] for node in nodes if node.op_type == "Relu"}
    for node in nodes:
        if node.name in integer_layers:
            result = grids.get(rectified.get(node.output[0], node.output[0]))
            _quantise_weights(graph, node, weights, scales, result, calibration)
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = [renamed.get(name, name) for name in node.input]
        graph.node.append(copied)
        value = node.output[0]
        computes = node.op_type in ("Conv", "LeakyRelu", "Relu", "Add")
        if (computes or node.input[0] == spec.input_name) and value in wanted:
            renamed[value] = _quantise_value(graph, value, grids[value])
            scales[value] = np.array([grids[value].scale], np.float32)
        elif node.op_type in ("Concat", *MOVES) and node.input[0] in scales:
            scales[value] = scales[node.input[0]]
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def _read_as_integers(nodes: Sequence[onnx.NodeProto], integer_layers: Set[str]) -> set[str]:
    """Values that an integer convolution reads, or that an operation without weights passes on to one."""
    wanted: set[str] = set()
    for node in reversed(nodes):
        passes_on = node.op_type in ("Add", "Concat", *MOVES) and node.output[0] in wanted
        if node.name in integer_layers or passes_on:
            wanted.update(node.input if passes_on and node.op_type not in MOVES else node.input[:1])
    return wanted


def _input_as_integers(
    model: onnx.ModelProto, spec: Spec, quantised: onnx.ModelProto
) -> tuple[str, list[onnx.NodeProto]]:
    """Cast and mean subtraction become one DequantizeLinear: real = pixel − mean is scale 1 and zero point mean."""
    cast, subtract, *rest = model.graph.node
    if (cast.op_type, subtract.op_type) != ("Cast", "Sub") or cast.input[0] != "image":
        raise QuantisationError("the graph does not begin with the mean subtraction; export it with this project")
    graph = quantised.graph
    graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "image.scale"))
    graph.initializer.append(numpy_helper.from_array(np.array(spec.mean, np.uint8), "image.zero_point"))
    value = subtract.output[0]
    names = ["image", "image.scale", "image.zero_point"]
    graph.node.append(helper.make_node("DequantizeLinear", names, [value], "image.dequantise", axis=3))
    unused = [tensor for tensor in graph.initializer if tensor.name == subtract.input[1]]
    for tensor in unused:
        graph.initializer.remove(tensor)
    return value, rest


def _quantise_weights(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    weights: Mapping[str, NDArray[np.float32]],
    scales: Mapping[str, NDArray[np.float32]],
    result: Grid | None,
    calibration: Calibration,
) -> None:
    """Weights and bias as integers; where the grid of the result is known, on scales that kernels agree on."""
    source, kernel, bias = node.input
    if source not in scales:
        raise QuantisationError(f"the input {source} of {node.name} is on no grid")
    weight = weights[kernel]
    limit = calibration.recipe.weight_limit
    span = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    # A channel of zeros, or one so small that its bias would not fit 32 bits, gets a scale that is just large enough.
    least = np.maximum(np.abs(weights[bias]) / (scales[source] * 2.0**30), np.float32(2.0**-40))
    scale = np.maximum(span / limit, least).astype(np.float32)
    if result is not None:
        scale = weight_scales(scale, float(scales[source][0]), result.scale)
    if node.name in calibration.products:
        product = calibration.products[node.name]
        integers = round_together(weight.astype(np.float64), scale.astype(np.float64), product, limit)
    else:
        integers = np.clip(np.rint(weight / scale[:, None, None, None]), -limit, limit).astype(np.int8)
    steps = (scale * scales[source]).astype(np.float32)
    _constant(graph, kernel, integers, scale)
    _constant(graph, bias, np.rint(weights[bias].astype(np.float64) / steps).astype(np.int32), steps)


def _constant(graph: onnx.GraphProto, name: str, integers: NDArray[np.generic], scale: NDArray[np.float32]) -> None:
    graph.initializer.append(numpy_helper.from_array(integers, f"{name}.integers"))
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
    graph.initializer.append(numpy_helper.from_array(np.zeros(scale.shape, integers.dtype), f"{name}.zero_point"))
    names = [f"{name}.integers", f"{name}.scale", f"{name}.zero_point"]
    graph.node.append(helper.make_node("DequantizeLinear", names, [name], f"{name}.dequantise", axis=0))


def _quantise_value(graph: onnx.GraphProto, name: str, grid: Grid) -> str:
    """Append the pair; gives the name of the value after it."""
    graph.initializer.append(numpy_helper.from_array(np.array(grid.scale, np.float32), f"{name}.scale"))
    graph.initializer.append(numpy_helper.from_array(np.array(grid.zero_point, np.uint8), f"{name}.zero_point"))
    parameters = [f"{name}.scale", f"{name}.zero_point"]
    integers, value = f"{name}.integers", f"{name}.quantised"
    graph.node.append(helper.make_node("QuantizeLinear", [name, *parameters], [integers], f"{name}.quantise"))
    graph.node.append(helper.make_node("DequantizeLinear", [integers, *parameters], [value], f"{name}.dequantise"))
    return value
