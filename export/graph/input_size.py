"""A detector's graph for another input size: only its input and outputs change, as no node depends on the size."""

from __future__ import annotations

import onnx

from retinaface_edge.calibration.graph.session import inferred_shapes
from retinaface_edge.runtime.spec import Contract

from .detector_graph import GraphError


def with_input_size(model: onnx.ModelProto, contract: Contract) -> onnx.ModelProto:
    """`model` with the input and outputs of `contract`, weights and quantisation parameters as they are.

    Raises `GraphError` when the graph has other outputs at this size.
    """
    resized = onnx.ModelProto()
    resized.CopyFrom(model)
    del resized.graph.value_info[:]
    expected = {output.name: list(output.shape) for output in contract.outputs}
    for value in resized.graph.input:
        _set_shape(value, list(contract.input_shape))
    for value in resized.graph.output:
        _set_shape(value, expected[value.name])
    height, width = contract.input_shape[1:3]
    try:
        found = inferred_shapes(resized)
    except onnx.shape_inference.InferenceError as error:
        raise GraphError(f"this detector has no input size {width}x{height}; build it alone ({error})") from error
    for name, shape in expected.items():
        if found[name] != shape:
            raise GraphError(f"at {width}x{height}, {name} of this detector is {found[name]} and not {shape}")
    return resized


def _set_shape(value: onnx.ValueInfoProto, shape: list[int]) -> None:
    for dimension, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
        dimension.dim_value = size
