"""The operators of a TFLite file: what each reads and writes, its work, and the layer of the network it belongs to."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MeasurementError

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
OF_A_LAYER = re.compile(
    r"(\.(activation|add|maxpool|avgpool|resize|concat|integers|padded(\.\d+)?|border(\.\d+)*|int8|real|mean|centred|float|swapped|transposed?|reshape|folded))+$"
)
"""What names of values have behind the name of their layer."""


@dataclass(frozen=True)
class Operator:
    """One operator of the graph.

    `reads` and `writes` are tensors by index, without constants; `parts` counts all that is read, constants too.
    `layer` is the part of the network that it belongs to, `macs` its multiply–accumulates, and `in_floats` says that
    it reads or writes floats.
    """

    kind: str
    name: str
    layer: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    parts: int
    macs: int
    in_floats: bool


@dataclass(frozen=True)
class Network:
    """The operators of a graph in their order, the shapes and types of its inputs, and what it begins with."""

    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    input_shapes: tuple[tuple[int, ...], ...]
    input_types: tuple[str, ...]

    @property
    def macs(self) -> int:
        """Multiply–accumulates of one run."""
        return sum(operator.macs for operator in self.operators)


def read_network(model: bytes) -> Network:
    """Read a TFLite file. Raises `MeasurementError` when it is none, or LiteRT is missing."""
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise MeasurementError("reading TFLite needs LiteRT; run: pip install 'retinaface-edge[tflite]'") from error
    try:
        content = schema.ModelT.InitFromPackedBuf(model, 0)
        (graph,) = content.subgraphs
        names = {value: name for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}
        types = {value: name for name, value in vars(schema.TensorType).items() if name.isupper()}
        constants = {
            index for index, tensor in enumerate(graph.tensors) if content.buffers[tensor.buffer].data is not None
        }
        operators = []
        for packed in graph.operators:
            code = content.operatorCodes[packed.opcodeIndex]
            kind = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
            operator = _operator(kind, packed, graph.tensors, constants, types)
            if kind == "CONV_2D":
                weights = graph.tensors[packed.inputs[1]]
                if types[weights.type] == "INT8":
                    array = np.asarray(content.buffers[weights.buffer].data, np.uint8).view(np.int8)
                    unused = _unused_share(array.reshape(list(weights.shape)), _columns(operator, graph.tensors))
                    operator = replace(operator, macs=round(operator.macs * (1.0 - unused)))
            operators.append(operator)
        return Network(
            tuple(operators),
            tuple(int(index) for index in graph.inputs),
            tuple(tuple(int(side) for side in graph.tensors[index].shape) for index in graph.inputs),
            tuple(types[graph.tensors[index].type].lower() for index in graph.inputs),
        )
    except (AttributeError, LookupError, TypeError, ValueError, struct.error) as error:
        raise MeasurementError(f"this TFLite file cannot be counted ({error!r}); build the bundle again") from error


def _columns(operator: Operator, tensors: Sequence[Any]) -> int:
    """How many columns of its result a convolution of a folded image makes at once, as channels."""
    unfolded = operator.name.removesuffix(".folded").encode()
    widths = [int(tensor.shape[2]) for tensor in tensors if tensor.name == unfolded]
    return widths[0] // int(tensors[operator.writes[0]].shape[2]) if widths else 1


def _unused_share(weights: NDArray[np.int8], columns: int) -> float:
    """The share of the windows that no output of a column weighs: what the folding of the image adds to them."""
    return 1.0 - float(np.mean(np.any(weights.reshape(columns, -1, *weights.shape[1:]), axis=1)))


def _operator(kind: str, packed: Any, tensors: Sequence[Any], constants: set[int], types: dict[int, str]) -> Operator:
    reads = tuple(int(index) for index in packed.inputs if index >= 0 and index not in constants)
    writes = tuple(int(index) for index in packed.outputs)
    macs = 0
    if kind in CONVOLUTIONS:
        weights = [int(side) for side in tensors[packed.inputs[1]].shape]
        outputs = math.prod(int(side) for side in tensors[writes[0]].shape)
        # Weights are (outputs, height, width, inputs), of a depthwise convolution (1, height, width, outputs).
        macs = outputs * math.prod(weights[:-1] if kind == "DEPTHWISE_CONV_2D" else weights[1:])
    name = tensors[writes[0]].name.decode()
    floats = any(types[tensors[index].type] == "FLOAT32" for index in (*reads, *writes))
    return Operator(kind, name, OF_A_LAYER.sub("", name), reads, writes, len(packed.inputs), macs, floats)
