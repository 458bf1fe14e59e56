"""ONNX to TFLite: every operation of this project's graphs, NHWC throughout.

The values of the ONNX graph are NCHW between its first and last Transpose; here they are NHWC everywhere, so those
Transposes vanish. A QDQ graph becomes int8: its uint8 grids shift by 128, which changes no value. Padding is explicit
only where TFLite's SAME would pad elsewhere than PyTorch does (stride 2: SAME pads bottom right, PyTorch top left).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from retinaface_edge.calibration.graph.onnx_graph import read_graph, to_proto
from retinaface_edge.calibration.kernel_parity import leaky_relu_slope
from retinaface_edge.runtime.errors import RetinaFaceEdgeError
from retinaface_edge.runtime.ops.postprocess import Grid

from ..graph.passes.uint8_stem import uint8_stem
from .tflite_schema import Graph, Operator, Quantisation, Tensor

SHIFT = 128
TO_NCHW, TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]
SWAPPED_NCHW, SWAPPED_TO_NHWC = [0, 3, 2, 1], [0, 2, 1, 3]
"""Width and channels of an NCHW value exchanged; and the same on its way to NHWC."""
SAME, VALID = 0, 1
NO_ACTIVATION, RELU = 0, 1
LARGEST_SIDE = 2**31 - 1
MALFORMED = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)
"""What reading a node or constant raises that does not follow ONNX's own rules."""


class LoweringError(RetinaFaceEdgeError):
    """An operation, or a form of one, that has no lowering; the message names the node and its type."""


def lower_tflite(model: onnx.ModelProto, grids: Mapping[str, Grid]) -> Graph:
    """Lower a graph exported by this project, FP32 or QDQ.

    `grids` gives the uint8 grids of values that the QDQ graph leaves float and TFLite needs as integers: those between
    a convolution and its activation, and the outputs. An FP32 graph needs none. Raises `LoweringError`.
    """
    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    try:
        return _Lowering(model if quantised else to_proto(uint8_stem(read_graph(model))), grids).lower()
    except MALFORMED as error:
        raise LoweringError(f"the graph is malformed ({error!r}); export the model again") from error


@dataclass
class _Value:
    """A value of the ONNX graph: its NHWC shape and the TFLite tensors that hold it, as floats, integers or both."""

    shape: tuple[int, ...]
    real: int | None = None
    integer: int | None = None
    grid: Grid | None = None
    centre: NDArray[np.int64] | None = None
    """The image's zero point in each channel. TFLite's integers have one for all, so it goes into bias and padding."""


@dataclass(frozen=True)
class _Constant:
    """An initializer; behind a DequantizeLinear, its integers with their scale for each output channel."""

    array: NDArray[Any]
    scale: NDArray[np.float32] | None = None


class _Lowering:
    """The state of one lowering: what has been made so far of the ONNX graph, node by node."""

    def __init__(self, model: onnx.ModelProto, grids: Mapping[str, Grid]) -> None:
        self.graph = model.graph
        self.constants = {t.name: _Constant(numpy_helper.to_array(t)) for t in self.graph.initializer}
        self.values: dict[str, _Value] = {}
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        self.producers = {name: node for node in self.graph.node for name in node.output}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        pairs = [node for node in self.graph.node if node.op_type == "QuantizeLinear"]
        self.grids = {**grids, **{node.input[0]: self.grid_of(node) for node in pairs}} if pairs else {}
        self.lowerings: dict[str, Callable[[onnx.NodeProto], None]] = {
            "Add": self.lower_add,
            "Cast": self.lower_cast,
            "Concat": self.lower_concat,
            "Conv": self.lower_conv,
            "DequantizeLinear": self.lower_dequantize,
            "LeakyRelu": self.lower_leaky_relu,
            "QuantizeLinear": self.lower_quantize,
            "Relu": self.lower_relu,
            "Reshape": self.lower_reshape,
            "Resize": self.lower_resize,
            "Sub": self.lower_sub,
            "Transpose": self.lower_transpose,
        }

    def lower(self) -> Graph:
        for entry in self.graph.input:
            shape = tuple(d.dim_value for d in entry.type.tensor_type.shape.dim)
            kind = entry.type.tensor_type.elem_type
            if kind not in (onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT) or len(shape) != 4:
                raise LoweringError(f"the input {entry.name!r} is not a uint8 image or floats of shape (1, h, w, c)")
            if kind == onnx.TensorProto.FLOAT:
                tensor = self.add_tensor(Tensor(entry.name, np.dtype(np.float32), shape))
                self.values[entry.name] = _Value(shape, real=tensor)
            else:
                tensor = self.add_tensor(Tensor(entry.name, np.dtype(np.uint8), shape))
                self.values[entry.name] = _Value(shape, integer=tensor)
        for node in self.graph.node:
            if node.op_type not in self.lowerings:
                raise LoweringError(f"node {node.name!r} has type {node.op_type}, which has no TFLite lowering here")
            try:
                self.lowerings[node.op_type](node)
            except MALFORMED as error:
                raise LoweringError(
                    f"node {node.name!r} of type {node.op_type} is malformed ({error!r}); export the model again"
                ) from error
        return Graph(
            self.tensors,
            self.operators,
            inputs=[0],
            outputs=[self.name_output(entry.name) for entry in self.graph.output],
        )

    # Node types

    def lower_cast(self, node: onnx.NodeProto) -> None:
        image = self.value(node, 0)
        if _attributes(node).get("to") != onnx.TensorProto.FLOAT or image.integer is None:
            raise LoweringError(f"node {node.name!r} of type Cast is not from the image to float")
        self.emit_real(node, "CAST", [image.integer], image.shape)

    def lower_sub(self, node: onnx.NodeProto) -> None:
        source, constant = self.value(node, 0), self.constant(node, 1)
        if constant.array.shape != source.shape[-1:]:
            raise LoweringError(f"node {node.name!r} of type Sub does not subtract one number a channel")
        subtrahend = self.add_constant(node.input[1], constant.array)
        self.emit_real(
            node, "SUB", [self.real(source), subtrahend], source.shape, {"fusedActivationFunction": NO_ACTIVATION}
        )

    def lower_transpose(self, node: onnx.NodeProto) -> None:
        permutation, source = list(_attributes(node).get("perm", [])), self.value(node, 0)
        if permutation in (TO_NCHW, TO_NHWC):
            self.values[node.output[0]] = source
            return
        if permutation not in (SWAPPED_NCHW, SWAPPED_TO_NHWC):
            raise LoweringError(
                f"node {node.name!r} of type Transpose permutes by {permutation}, which neither goes between NHWC and "
                "NCHW nor exchanges width and channels"
            )
        batch, height, width, channels = source.shape
        order = self.add_constant(f"{node.name}.order", np.array([0, 1, 3, 2], np.int32))
        self.share_grid(node, source)
        self.emit(node, "TRANSPOSE", [source], (batch, height, channels, width), {}, [order])

    def lower_reshape(self, node: onnx.NodeProto) -> None:
        source = self.value(node, 0)
        shape = tuple(int(n) for n in self.constant(node, 1).array)
        nhwc = self.producers[node.input[0]].op_type == "Transpose" and all(
            reader.op_type == "Transpose" for reader in self.readers.get(node.output[0], [])
        )
        if not nhwc or len(shape) != 4 or min(shape) < 1 or np.prod(shape) != np.prod(source.shape):
            raise LoweringError(f"node {node.name!r} of type Reshape does not rearrange NHWC values between Transposes")
        constant = self.add_constant(f"{node.name}.shape", np.array(shape, np.int32))
        self.share_grid(node, source)
        self.emit(node, "RESHAPE", [source], shape, {"newShape": list(shape)}, [constant])

    def lower_quantize(self, node: onnx.NodeProto) -> None:
        value = self.value(node, 0)
        if value.integer is None:
            value.grid = self.grids[node.input[0]]
            value.integer = self.add_integer(node.output[0], value.shape, value.grid)
            self.operators.append(Operator("QUANTIZE", (self.real(value),), (value.integer,)))
        self.values[node.output[0]] = value

    def lower_dequantize(self, node: onnx.NodeProto) -> None:
        source, scale, zero_point = node.input
        if source in self.constants:
            if np.any(self.constants[zero_point].array):
                raise LoweringError(f"node {node.name!r} of type DequantizeLinear: a constant's zero point is not 0")
            self.constants[node.output[0]] = _Constant(self.constants[source].array, self.constants[scale].array)
        elif self.value(node, 0).grid is None:
            self.values[node.output[0]] = self.centred_image(node)
        else:
            self.values[node.output[0]] = self.value(node, 0)

    def lower_conv(self, node: onnx.NodeProto) -> None:
        source, weight, bias = self.value(node, 0), self.constant(node, 1), self.constant(node, 2)
        attributes = _attributes(node)
        group, pads = attributes.get("group", 1), attributes.get("pads", [0, 0, 0, 0])
        strides = attributes.get("strides", [1, 1])
        if set(attributes.get("dilations", [1, 1])) != {1}:
            raise LoweringError(f"node {node.name!r} of type Conv is dilated")
        if not all(0 < stride <= LARGEST_SIDE for stride in strides):
            raise LoweringError(f"node {node.name!r} of type Conv has strides {list(strides)}")
        if weight.array.ndim != 4 or not all(0 <= pad < max(weight.array.shape[2:]) for pad in pads):
            raise LoweringError(f"node {node.name!r} of type Conv pads by {list(pads)}, which its kernel cannot reach")
        if group > 1 and not group == source.shape[3] == weight.array.shape[0]:
            raise LoweringError(
                f"node {node.name!r} of type Conv has {group} groups; only 1 or one a channel can be lowered"
            )
        if weight.scale is None:
            source = _Value(source.shape, real=self.real(source))
        sides = [
            _Side(source.shape[1 + i], weight.array.shape[2 + i], strides[i], pads[i], pads[2 + i]) for i in (0, 1)
        ]
        shape = (1, sides[0].outputs, sides[1].outputs, weight.array.shape[0])
        same = source.centre is None and all(side.is_same for side in sides)
        if not same and any(amount for side in sides for amount in side.padding):
            source = self.pad(node, source, [side.padding for side in sides])

        relu = self.fused_relu(node)
        options = {
            "padding": SAME if same else VALID,
            "strideH": strides[0],
            "strideW": strides[1],
            "fusedActivationFunction": NO_ACTIVATION if relu is None else RELU,
        }
        name, order, axis = "CONV_2D", (0, 2, 3, 1), 0
        if group > 1:
            name, order, axis = "DEPTHWISE_CONV_2D", (1, 2, 3, 0), 3
            options["depthMultiplier"] = 1
        kernel = np.ascontiguousarray(weight.array.transpose(order))
        if weight.scale is None:
            constants = [self.add_constant(node.input[1], kernel), self.add_constant(node.input[2], bias.array)]
            self.emit_real(relu or node, name, [self.real(source), *constants], shape, options)
            return
        if source.grid is None or source.integer is None:
            raise LoweringError(f"node {node.name!r} of type Conv has integer weights but an input on no grid")
        integers, steps = bias.array.astype(np.int64), (weight.scale * np.float32(source.grid.scale)).astype(np.float32)
        if source.centre is not None:
            integers = integers - weight.array.astype(np.int64).sum(axis=(2, 3)) @ source.centre
        constants = [
            self.add_constant(node.input[1], kernel, weight.scale, axis),
            self.add_constant(node.input[2], integers.astype(np.int32), steps),
        ]
        self.emit_integer(relu or node, name, [source.integer, *constants], shape, options)

    def lower_relu(self, node: onnx.NodeProto) -> None:
        if node.output[0] not in self.values:
            raise LoweringError(
                f"node {node.name!r} of type Relu does not follow a convolution that it can be fused with"
            )

    def lower_leaky_relu(self, node: onnx.NodeProto) -> None:
        source, slope, result = (
            self.value(node, 0),
            _attributes(node).get("alpha", 0.01),
            self.grids.get(node.output[0]),
        )
        if source.grid is not None and result is not None:
            slope = leaky_relu_slope(source.grid.scale, result.scale, slope)
        self.emit(node, "LEAKY_RELU", [source], source.shape, {"alpha": slope})

    def lower_add(self, node: onnx.NodeProto) -> None:
        terms = [self.value(node, 0), self.value(node, 1)]
        if terms[0].shape != terms[1].shape:
            raise LoweringError(f"node {node.name!r} of type Add adds shapes {terms[0].shape} and {terms[1].shape}")
        self.emit(node, "ADD", terms, terms[0].shape, {"fusedActivationFunction": NO_ACTIVATION})

    def lower_concat(self, node: onnx.NodeProto) -> None:
        if any(name in self.constants for name in node.input):
            self.lower_border(node)
            return
        parts = [self.value(node, index) for index in range(len(node.input))]
        if _attributes(node).get("axis") != 1:
            raise LoweringError(f"node {node.name!r} of type Concat does not join channels")
        grids = {part.grid for part in parts}
        if len(grids - {None}) > 1:
            raise LoweringError(f"node {node.name!r} of type Concat has parts on different grids")
        if None not in grids:
            self.share_grid(node, parts[0])
        shape = (*parts[0].shape[:3], sum(part.shape[3] for part in parts))
        self.emit(node, "CONCATENATION", parts, shape, {"axis": 3, "fusedActivationFunction": NO_ACTIVATION})

    def lower_border(self, node: onnx.NodeProto) -> None:
        """Rows or columns of bytes beside the image, both still NHWC (`uint8_stem`)."""
        axis = _attributes(node).get("axis")
        found = [
            self.add_constant(name, self.constants[name].array) if name in self.constants else self.values[name].integer
            for name in node.input
        ]
        parts = tuple(part for part in found if part is not None)
        kinds = {self.tensors[part].dtype for part in parts}
        if axis not in (1, 2) or len(parts) < len(found) or kinds != {np.dtype(np.uint8)}:
            raise LoweringError(f"node {node.name!r} of type Concat does not put a border of bytes around the image")
        shapes = [self.tensors[part].shape for part in parts]
        shape = tuple(sum(s[axis] for s in shapes) if i == axis else n for i, n in enumerate(shapes[0]))
        result = self.add_tensor(Tensor(node.output[0], np.dtype(np.uint8), shape))
        options = {"axis": axis, "fusedActivationFunction": NO_ACTIVATION}
        self.operators.append(Operator("CONCATENATION", parts, (result,), options))
        self.values[node.output[0]] = _Value(shape, integer=result)

    def lower_resize(self, node: onnx.NodeProto) -> None:
        source, attributes = self.value(node, 0), _attributes(node)
        scales = self.constant(node, 2).array if len(node.input) == 3 else np.zeros(0)
        whole = scales.shape == (4,) and np.array_equal(scales, np.rint(scales)) and scales[0] == scales[1] == 1
        form = [attributes.get(key) for key in ("mode", "coordinate_transformation_mode", "nearest_mode")]
        if not whole or form != [b"nearest", b"asymmetric", b"floor"]:
            raise LoweringError(
                f"node {node.name!r} of type Resize is not nearest-neighbour upsampling by a whole factor"
            )
        size = (source.shape[1] * int(scales[2]), source.shape[2] * int(scales[3]))
        self.share_grid(node, source)
        constant = self.add_constant(f"{node.name}.size", np.array(size, np.int32))
        options = {"alignCorners": False, "halfPixelCenters": False}
        self.emit(node, "RESIZE_NEAREST_NEIGHBOR", [source], (1, *size, source.shape[3]), options, [constant])

    # Parts of a lowering

    def emit(
        self,
        node: onnx.NodeProto,
        operator: str,
        sources: Sequence[_Value],
        shape: tuple[int, ...],
        options: Mapping[str, Any],
        constants: Sequence[int] = (),
    ) -> None:
        """An integer operator if all it reads is integer and its result has a grid, else a float one."""
        integers = [source.integer for source in sources if source.integer is not None]
        if node.output[0] in self.grids and len(integers) == len(sources):
            self.emit_integer(node, operator, [*integers, *constants], shape, options)
        else:
            self.emit_real(node, operator, [*(self.real(source) for source in sources), *constants], shape, options)

    def emit_real(
        self,
        node: onnx.NodeProto,
        operator: str,
        inputs: Sequence[int],
        shape: tuple[int, ...],
        options: Mapping[str, Any] | None = None,
    ) -> None:
        result = self.add_tensor(Tensor(node.output[0], np.dtype(np.float32), shape))
        self.operators.append(Operator(operator, tuple(inputs), (result,), options or {}))
        self.values[node.output[0]] = _Value(shape, real=result)

    def emit_integer(
        self,
        node: onnx.NodeProto,
        operator: str,
        inputs: Sequence[int],
        shape: tuple[int, ...],
        options: Mapping[str, Any],
    ) -> None:
        name = node.output[0]
        if name not in self.grids:
            raise LoweringError(
                f"node {node.name!r} of type {node.op_type}: no calibrated grid for its result {name!r}"
            )
        result = self.add_integer(name, shape, self.grids[name])
        self.operators.append(Operator(operator, tuple(inputs), (result,), options))
        self.values[name] = _Value(shape, integer=result, grid=self.grids[name])

    def real(self, value: _Value) -> int:
        """The value as floats; a DEQUANTIZE is added once where it has only integers."""
        if value.real is None:
            assert value.integer is not None
            name = f"{self.tensors[value.integer].name}.real"
            value.real = self.add_tensor(Tensor(name, np.dtype(np.float32), value.shape))
            self.operators.append(Operator("DEQUANTIZE", (value.integer,), (value.real,)))
            if value.centre is not None:
                pixels, mean = value.real, self.add_constant(f"{name}.mean", value.centre.astype(np.float32))
                value.real = self.add_tensor(Tensor(f"{name}.centred", np.dtype(np.float32), value.shape))
                options = {"fusedActivationFunction": NO_ACTIVATION}
                self.operators.append(Operator("SUB", (pixels, mean), (value.real,), options))
        return value.real

    def centred_image(self, node: onnx.NodeProto) -> _Value:
        """The uint8 image as int8, where real = pixel; its per-channel zero point is kept aside."""
        image, scale, centre = self.value(node, 0), *(self.constant(node, index).array for index in (1, 2))
        if image.integer is None or _attributes(node).get("axis") != 3 or np.any(scale != 1.0):
            raise LoweringError(f"node {node.name!r} of type DequantizeLinear is not the mean subtraction of the image")
        # Quantising a uint8 tensor of scale 1 and zero point 0 to int8 with zero point −128 subtracts 128: exact.
        source = replace(self.tensors[image.integer], quantisation=Quantisation((1.0,), (0,)))
        self.tensors[image.integer] = source
        grid = Grid(1.0, 0)
        result = self.add_integer(f"{source.name}.int8", image.shape, grid)
        self.operators.append(Operator("QUANTIZE", (image.integer,), (result,)))
        return _Value(image.shape, integer=result, grid=grid, centre=centre.astype(np.int64))

    def pad(self, node: onnx.NodeProto, source: _Value, padding: Sequence[tuple[int, int]]) -> _Value:
        """`source` with explicit padding (before, after) of its height and width: real zeros, so the image's mean."""
        if source.centre is not None:
            return self.pad_with_mean(node, source, padding)
        shape = (
            1,
            *(size + sum(sides) for size, sides in zip(source.shape[1:3], padding, strict=True)),
            source.shape[3],
        )
        amounts = self.add_constant(f"{node.name}.padding", np.array([(0, 0), *padding, (0, 0)], np.int32))
        name = f"{node.name}.padded"
        if source.integer is not None and source.grid is not None:
            result = self.add_integer(name, shape, source.grid)
            self.operators.append(Operator("PAD", (source.integer, amounts), (result,)))
            return _Value(shape, integer=result, grid=source.grid)
        result = self.add_tensor(Tensor(name, np.dtype(np.float32), shape))
        self.operators.append(Operator("PAD", (self.real(source), amounts), (result,)))
        return _Value(shape, real=result)

    def pad_with_mean(self, node: onnx.NodeProto, source: _Value, padding: Sequence[tuple[int, int]]) -> _Value:
        """PAD fills with one number; rows and columns of the mean colour are concatenated instead."""
        assert source.centre is not None and source.integer is not None and source.grid is not None
        colour = (source.centre - SHIFT).astype(np.int8)
        shape, current = list(source.shape), source.integer
        for axis, amounts in ((1, padding[0]), (2, padding[1])):
            parts = [current]
            for amount, position in zip(amounts, (0, 1), strict=True):
                if amount:
                    edge = np.broadcast_to(colour, [*shape[:axis], amount, *shape[axis + 1 :]])
                    name = f"{node.name}.border.{axis}.{position}"
                    quantisation = Quantisation((source.grid.scale,), (source.grid.zero_point - SHIFT,))
                    constant = Tensor(name, edge.dtype, edge.shape, quantisation, np.ascontiguousarray(edge))
                    parts.insert(0 if position == 0 else len(parts), self.add_tensor(constant))
            if len(parts) > 1:
                shape[axis] += sum(amounts)
                current = self.add_integer(f"{node.name}.padded.{axis}", tuple(shape), source.grid)
                options = {"axis": axis, "fusedActivationFunction": NO_ACTIVATION}
                self.operators.append(Operator("CONCATENATION", tuple(parts), (current,), options))
        return replace(source, shape=tuple(shape), integer=current)

    def fused_relu(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The Relu that alone reads this node's result, if there is one."""
        readers = self.readers.get(node.output[0], [])
        return readers[0] if len(readers) == 1 and readers[0].op_type == "Relu" else None

    def share_grid(self, node: onnx.NodeProto, source: _Value) -> None:
        """Operators that only move values keep the grid of what they read."""
        if source.grid is not None:
            self.grids[node.output[0]] = source.grid

    def name_output(self, name: str) -> int:
        if name not in self.values:
            raise LoweringError(f"no node of the graph makes its output {name!r}")
        value = self.values[name]
        index = value.integer if value.integer is not None else self.real(value)
        self.tensors[index] = replace(self.tensors[index], name=name)
        return index

    def value(self, node: onnx.NodeProto, position: int) -> _Value:
        name = node.input[position] if position < len(node.input) else ""
        if name not in self.values:
            raise LoweringError(
                f"node {node.name!r} of type {node.op_type}: input {position} ({name!r}) is not a value here"
            )
        return self.values[name]

    def constant(self, node: onnx.NodeProto, position: int) -> _Constant:
        name = node.input[position] if position < len(node.input) else ""
        if name not in self.constants:
            raise LoweringError(
                f"node {node.name!r} of type {node.op_type}: input {position} ({name!r}) is not a constant"
            )
        return self.constants[name]

    def grid_of(self, node: onnx.NodeProto) -> Grid:
        return Grid(float(self.constant(node, 1).array), int(self.constant(node, 2).array))

    def add_tensor(self, tensor: Tensor) -> int:
        if not all(0 < side <= LARGEST_SIDE for side in tensor.shape):
            raise LoweringError(f"the value {tensor.name!r} would have the shape {tensor.shape}")
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def add_integer(self, name: str, shape: tuple[int, ...], grid: Grid) -> int:
        return self.add_tensor(
            Tensor(name, np.dtype(np.int8), shape, Quantisation((grid.scale,), (grid.zero_point - SHIFT,)))
        )

    def add_constant(
        self, name: str, array: NDArray[Any], scale: NDArray[np.float32] | None = None, axis: int = 0
    ) -> int:
        quantisation = None
        if scale is not None:
            quantisation = Quantisation(tuple(scale.tolist()), (0,) * scale.size, axis)
        return self.add_tensor(Tensor(name, array.dtype, array.shape, quantisation, array))


@dataclass(frozen=True)
class _Side:
    """Height or width of a convolution's input, with the kernel, stride and padding along it."""

    size: int
    kernel: int
    stride: int
    before: int
    after: int

    @property
    def outputs(self) -> int:
        return (self.size + self.before + self.after - self.kernel) // self.stride + 1

    @property
    def padding(self) -> tuple[int, int]:
        """Before and after, without what no window reaches."""
        return self.before, max((self.outputs - 1) * self.stride + self.kernel - self.before - self.size, 0)

    @property
    def is_same(self) -> bool:
        """Whether SAME pads like this: half of what makes ceil(size / stride) outputs, the smaller half before."""
        total = max((-(-self.size // self.stride) - 1) * self.stride + self.kernel - self.size, 0)
        return self.outputs == -(-self.size // self.stride) and self.padding == (total // 2, total - total // 2)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
