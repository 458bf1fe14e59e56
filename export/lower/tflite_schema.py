"""TFLite files: a plain description of a graph, serialised on the official schema. Same graph, same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

SCHEMA_VERSION = 3
BUFFER_ALIGNMENT = 16
TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.uint8): schema.TensorType.UINT8,
}
# The version of each operator that first takes the types used here (TensorFlow Lite, tools/versioning/op_version.cc).
VERSIONS = {
    "ADD": {"int8": 2},
    "AVERAGE_POOL_2D": {"int8": 2},
    "CONCATENATION": {"int8": 2},
    "CONV_2D": {"int8": 3},
    "DEPTHWISE_CONV_2D": {"int8": 3},
    "DEQUANTIZE": {"int8": 2},
    "LEAKY_RELU": {"int8": 2},
    "MAX_POOL_2D": {"int8": 2},
    "PAD": {"int8": 2},
    "PADV2": {"int8": 2},
    "QUANTIZE": {"uint8": 2},
    "RESIZE_BILINEAR": {"int8": 2},
    "RESIZE_NEAREST_NEIGHBOR": {"int8": 2},
    "SLICE": {"int8": 2},
    "TRANSPOSE": {"int8": 2},
}


@dataclass(frozen=True)
class Quantisation:
    """real = (integer − zero_point)·scale; one scale per tensor, or one per channel of dimension `axis`."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int = 0


@dataclass(frozen=True)
class Tensor:
    """A value of the graph. A constant has `data`, whose dtype and shape are the tensor's."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    quantisation: Quantisation | None = None
    data: NDArray[Any] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Operator:
    """One operator: its name in the schema, its tensors by index, and its options by their name in the schema."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """A whole network; `inputs` and `outputs` are tensor indices."""

    tensors: Sequence[Tensor]
    operators: Sequence[Operator]
    inputs: Sequence[int]
    outputs: Sequence[int]

    @property
    def float_operators(self) -> int:
        """How many operators read or write a float value, not counting those that only read the graph's input."""
        floats = {i for i, t in enumerate(self.tensors) if t.dtype == np.float32 and t.data is None} - {*self.inputs}
        return sum(bool(floats.intersection((*operator.inputs, *operator.outputs))) for operator in self.operators)


def serialise(graph: Graph) -> bytes:
    """The bytes of the `.tflite` file."""
    model = schema.ModelT()
    model.version = SCHEMA_VERSION
    model.description = "retinaface-edge"
    model.buffers = [schema.BufferT()]  # by convention the first buffer is empty
    codes: dict[tuple[str, int], int] = {}
    subgraph = schema.SubGraphT()
    subgraph.name = "main"
    subgraph.tensors = [_tensor(tensor, model.buffers) for tensor in graph.tensors]
    subgraph.operators = [_operator(operator, graph.tensors, codes) for operator in graph.operators]
    subgraph.inputs, subgraph.outputs = list(graph.inputs), list(graph.outputs)
    model.operatorCodes = [_operator_code(name, version) for name, version in codes]
    model.subgraphs = [subgraph]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]
    """The schema asks for 16-byte alignment of weights; the generated Python code leaves it out."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = content

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802
        content = self.content
        builder.StartVector(1, len(content), BUFFER_ALIGNMENT)
        builder.head -= len(content)
        builder.Bytes[builder.head : builder.head + len(content)] = content
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)  # type: ignore[no-any-return]


def _tensor(tensor: Tensor, buffers: list[schema.BufferT]) -> schema.TensorT:
    packed = schema.TensorT()
    packed.name, packed.shape, packed.hasRank = tensor.name, list(tensor.shape), True
    packed.type = TYPES[tensor.dtype]
    packed.buffer = 0
    if tensor.data is not None:
        buffer = _AlignedBuffer(np.ascontiguousarray(tensor.data).tobytes())
        packed.buffer = len(buffers)
        buffers.append(buffer)
    if tensor.quantisation is not None:
        quantisation = schema.QuantizationParametersT()
        quantisation.scale = list(tensor.quantisation.scales)
        quantisation.zeroPoint = list(tensor.quantisation.zero_points)
        quantisation.quantizedDimension = tensor.quantisation.axis
        packed.quantization = quantisation
    return packed


def _operator(operator: Operator, tensors: Sequence[Tensor], codes: dict[tuple[str, int], int]) -> schema.OperatorT:
    kind = tensors[operator.inputs[0]].dtype.name
    code = (operator.name, _version(operator, kind))
    packed = schema.OperatorT()
    packed.opcodeIndex = codes.setdefault(code, len(codes))
    packed.inputs, packed.outputs = list(operator.inputs), list(operator.outputs)
    name = OPTIONS.get(operator.name)
    if name is not None:
        options = getattr(schema, f"{name}T")()
        for key, value in operator.options.items():
            setattr(options, key, value)
        packed.builtinOptions = options
        packed.builtinOptionsType = getattr(schema.BuiltinOptions, name)
    return packed


def _version(operator: Operator, kind: str) -> int:
    dilated = operator.name == "DEPTHWISE_CONV_2D" and "dilationHFactor" in operator.options
    return max(VERSIONS.get(operator.name, {}).get(kind, 1), 2 if dilated else 1)


def _operator_code(name: str, version: int) -> schema.OperatorCodeT:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
    code.version = version
    return code


OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SUB": "SubOptions",
}
"""The schema's options table of each operator that has one with a field.

CAST, PAD, PADV2, RSQRT, SLICE, SQUARED_DIFFERENCE, TRANSPOSE and the quantisers need none.
"""
