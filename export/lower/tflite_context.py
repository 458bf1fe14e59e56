"""State of one lowering to TFLite: what each value of the ONNX graph has become, and how operators are added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from retinaface_edge.calibration.graph.onnx_graph import array_of
from retinaface_edge.runtime.errors import RetinaFaceEdgeError
from retinaface_edge.runtime.ops.postprocess import QuantParams

from .tflite_schema import TYPES, Graph, Operator, Quantisation, Tensor

SHIFT = 128
"""uint8 quantisation becomes int8 by subtracting this from integers and zero points, which changes no value."""
LARGEST_SIDE = 2**31 - 1
NO_ACTIVATION, RELU, RELU6 = 0, 1, 3


class LoweringError(RetinaFaceEdgeError):
    """An operation, or a form of one, that has no lowering; the message names the node and its type."""


@dataclass
class Lowered:
    """What a value of the ONNX graph became: its NHWC shape, and the TFLite tensors that hold it, as floats or int8."""

    shape: tuple[int, ...]
    real: int | None = None
    integer: int | None = None
    quant: QuantParams | None = None
    centre: NDArray[np.int64] | None = None
    """The image's zero point in each channel. TFLite has one for all channels, so it goes into bias and padding."""


@dataclass(frozen=True)
class Constant:
    """An initializer; behind a DequantizeLinear, its integers with their scale for each output channel."""

    array: NDArray[Any]
    scale: NDArray[np.float32] | None = None


class Context:
    """What has been made so far of an ONNX graph. `quant_params` gives uint8 quantisation parameters by value name."""

    def __init__(self, graph: ir.Graph, quant_params: Mapping[str, QuantParams], image_columns: int) -> None:
        self.image_columns = image_columns
        self.constants: dict[ir.Value, Constant] = {
            value: Constant(array_of(value.const_value))
            for value in graph.initializers.values()
            if value.const_value is not None
        }
        self.values: dict[ir.Value, Lowered] = {}
        self.fused: set[ir.Node] = set()
        """Nodes that an operator before them has taken along: activations and constant factors."""
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []
        pairs = [node for node in graph if node.op_type == "QuantizeLinear"]
        self.quant_params = (
            {**quant_params, **{name_of(node, 0): self.quant_of(node) for node in pairs}} if pairs else {}
        )

    # The ONNX side

    def value(self, node: ir.Node, position: int) -> Lowered:
        """What the input at `position` became. Raises `LoweringError` where it is not a value."""
        source = _input(node, position)
        if source not in self.values:
            raise LoweringError(
                f"{described(node)}: input {position} ({name_of(node, position)!r}) is not a value here"
            )
        return self.values[source]

    def constant(self, node: ir.Node, position: int) -> Constant:
        """The constant at `position`. Raises `LoweringError` where it is not one."""
        source = _input(node, position)
        if source not in self.constants:
            raise LoweringError(f"{described(node)}: input {position} ({name_of(node, position)!r}) is not a constant")
        return self.constants[source]

    def is_constant(self, node: ir.Node, position: int) -> bool:
        """Whether the input at `position` is an initializer."""
        return _input(node, position) in self.constants

    def quant_of(self, node: ir.Node) -> QuantParams:
        """The quantisation parameters of a QuantizeLinear or DequantizeLinear of a whole tensor."""
        return QuantParams(float(self.constant(node, 1).array), int(self.constant(node, 2).array))

    def share_quant(self, node: ir.Node, source: Lowered) -> None:
        """Let the result have the quantisation of what is read: for operators that only move or select values."""
        if source.quant is not None:
            self.quant_params[result_of(node)] = source.quant

    # The TFLite side

    def emit(
        self,
        node: ir.Node,
        operator: str,
        sources: Sequence[Lowered],
        shape: tuple[int, ...],
        options: Mapping[str, Any],
        constants: Sequence[int] = (),
    ) -> None:
        """An integer operator if its inputs are integers and its result is quantised, else a float one."""
        integers = [source.integer for source in sources if source.integer is not None and source.centre is None]
        if result_of(node) in self.quant_params and len(integers) == len(sources):
            self.emit_integer(node, operator, [*integers, *constants], shape, options)
        else:
            self.emit_real(node, operator, [*(self.real(source) for source in sources), *constants], shape, options)

    def emit_real(
        self,
        node: ir.Node,
        operator: str,
        inputs: Sequence[int],
        shape: tuple[int, ...],
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """An operator whose result, that of `node`, is float."""
        result = self.add_real(result_of(node), shape)
        self.add_operator(operator, inputs, result, options)
        self.values[node.outputs[0]] = Lowered(shape, real=result)

    def emit_integer(
        self, node: ir.Node, operator: str, inputs: Sequence[int], shape: tuple[int, ...], options: Mapping[str, Any]
    ) -> None:
        """An operator whose result, that of `node`, is int8. Raises `LoweringError` where nobody calibrated it."""
        name = result_of(node)
        if name not in self.quant_params:
            raise LoweringError(f"{described(node)}: no quantisation parameters for its result {name!r}")
        result = self.add_integer(name, shape, self.quant_params[name])
        self.add_operator(operator, inputs, result, options)
        self.values[node.outputs[0]] = Lowered(shape, integer=result, quant=self.quant_params[name])

    def real(self, value: Lowered) -> int:
        """The value as floats; a DEQUANTIZE is added once where it has only integers."""
        if value.real is None:
            assert value.integer is not None
            name = f"{self.tensors[value.integer].name}.real"
            value.real = self.add_real(name, value.shape)
            self.add_operator("DEQUANTIZE", (value.integer,), value.real)
            if value.centre is not None:
                pixels, mean = value.real, self.add_constant(f"{name}.mean", value.centre.astype(np.float32))
                value.real = self.add_real(f"{name}.centred", value.shape)
                self.add_operator("SUB", (pixels, mean), value.real, {"fusedActivationFunction": NO_ACTIVATION})
        return value.real

    def add_operator(
        self, name: str, inputs: Sequence[int], result: int, options: Mapping[str, Any] | None = None
    ) -> None:
        """Append an operator that makes the tensor `result`."""
        self.operators.append(Operator(name, tuple(inputs), (result,), options or {}))

    def add_tensor(self, tensor: Tensor) -> int:
        """Append a tensor; gives its index. Raises `LoweringError` for shapes and dtypes that TFLite does not have."""
        if not all(0 < side <= LARGEST_SIDE for side in tensor.shape):
            raise LoweringError(f"the value {tensor.name!r} would have the shape {tensor.shape}")
        if tensor.dtype not in TYPES:
            raise LoweringError(f"the value {tensor.name!r} has the dtype {tensor.dtype}; only 32-bit floats, 32-bit "
                                "integers and bytes can be lowered")  # fmt: skip
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def add_real(self, name: str, shape: tuple[int, ...]) -> int:
        """Append a float32 tensor."""
        return self.add_tensor(Tensor(name, np.dtype(np.float32), shape))

    def add_integer(self, name: str, shape: tuple[int, ...], quant: QuantParams) -> int:
        """Append an int8 tensor with the uint8 quantisation parameters `quant`."""
        return self.add_tensor(Tensor(name, np.dtype(np.int8), shape, quantisation_of(quant)))

    def add_constant(
        self, name: str, array: NDArray[Any], scale: NDArray[np.float32] | None = None, axis: int = 0
    ) -> int:
        """Append a constant; with `scale`, integers without a zero point and one scale for each index of `axis`."""
        quantisation = None
        if scale is not None:
            quantisation = Quantisation(tuple(scale.tolist()), (0,) * scale.size, axis)
        return self.add_tensor(Tensor(name, array.dtype, array.shape, quantisation, array))

    def finish(self, graph: ir.Graph) -> Graph:
        """The TFLite graph, its outputs named as those of the ONNX graph."""
        return Graph(self.tensors, self.operators, [0], [self._output(value) for value in graph.outputs])

    def _output(self, value: ir.Value) -> int:
        if value not in self.values:
            raise LoweringError(f"no node of the graph makes its output {value.name or ''!r}")
        lowered = self.values[value]
        index = lowered.integer if lowered.integer is not None else self.real(lowered)
        tensor = self.tensors[index]
        self.tensors[index] = Tensor(value.name or "", tensor.dtype, tensor.shape, tensor.quantisation, tensor.data)
        return index


def described(node: ir.Node) -> str:
    """The node's name and type, as every refusal begins."""
    return f"node {node.name or ''!r} of type {node.op_type}"


def result_of(node: ir.Node) -> str:
    """The name of the node's first result."""
    return node.outputs[0].name or ""


def name_of(node: ir.Node, position: int) -> str:
    """The name of the node's input at `position`; empty where it has none."""
    source = _input(node, position)
    return "" if source is None else source.name or ""


def producer_of(node: ir.Node, position: int) -> ir.Node | None:
    """The node that makes the input at `position`; None for an input of the graph."""
    source = _input(node, position)
    return None if source is None else source.producer()


def quantisation_of(quant: QuantParams) -> Quantisation:
    """uint8 quantisation parameters as those of int8."""
    return Quantisation((quant.scale,), (quant.zero_point - SHIFT,))


def _input(node: ir.Node, position: int) -> ir.Value | None:
    return node.inputs[position] if position < len(node.inputs) else None
