"""Reads the graph of any trained ONNX detector: its raw heads, by stride, and the layers before them.

A detector's file ends in what its exporter thought useful: sigmoids, reshapes, transposes, a learnt scale. The contract
wants the raw values of the last convolutions, so the graph is cut there, given a fixed input size and rebuilt from
operators with one normal form each. Nothing here knows a detector's name; `checkpoints/` says what the heads mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from retinaface_edge.runtime.errors import RetinaFaceEdgeError

REARRANGES = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast")
"""What may stand between the last convolution and an output without changing a value."""
QUANTISED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "DynamicQuantizeLinear")


class GraphError(RetinaFaceEdgeError):
    """An ONNX file that holds no detector this project can compile. The message begins with "it", the file."""


@dataclass(frozen=True)
class Head:
    """One raw output of the detector, found behind an output of the file.

    `value` is the convolution's result, NCHW with `channels` channels; the file's output is `scale` times that, after a
    sigmoid where `sigmoid` is set. `order` is the output's place in the file.
    """

    name: str
    value: str
    order: int
    channels: int
    sigmoid: bool
    scale: float
    stride: int = 0


@dataclass(frozen=True)
class DetectorGraph:
    """A detector cut at its raw heads: the graph from `input_name` to the values of `heads`, of any input size."""

    model: ir.Model
    input_name: str
    heads: tuple[Head, ...]

    def at(self, stride: int) -> tuple[Head, ...]:
        """The heads of one stride, in the order of the file."""
        return tuple(head for head in self.heads if head.stride == stride)

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the levels, ascending."""
        return tuple(sorted({head.stride for head in self.heads}))


def read_detector_graph(content: bytes) -> DetectorGraph:
    """Cut the graph in the bytes of an ONNX file at its raw heads.

    Raises `GraphError` when the file is not an ONNX model, is quantised already, keeps its weights elsewhere, has more
    than one input, or has an output that no convolution makes.
    """
    try:
        proto = onnx.load_from_string(content)
        external = any(t.data_location == onnx.TensorProto.EXTERNAL for t in proto.graph.initializer)
        if external or not proto.graph.node:
            raise GraphError("its weights are in another file" if external else "it holds no graph")
        model = ir.from_proto(proto)
    except GraphError:
        raise
    except Exception as error:  # protobuf and onnx_ir raise many kinds for damaged bytes
        raise GraphError(f"it cannot be read as ONNX ({type(error).__name__})") from error
    graph = model.graph
    if kinds := sorted({node.op_type for node in graph if node.op_type in QUANTISED}):
        raise GraphError(f"it is quantised already ({', '.join(kinds)}); give the FP32 model that it was made from")
    inputs = [value for value in graph.inputs if value.name not in graph.initializers]
    if len(inputs) != 1 or inputs[0].name is None:
        raise GraphError(f"it has {len(inputs)} inputs, a detector has one image")
    with foreign_graph():
        heads = tuple(_head(value, order) for order, value in enumerate(graph.outputs))
        return _with_strides(_of_any_size(DetectorGraph(model, inputs[0].name, heads)))


@contextmanager
def foreign_graph() -> Iterator[None]:
    """Inside, a graph that others made is walked; one that contradicts itself, in whatever way, is a `GraphError`."""
    try:
        yield
    except RetinaFaceEdgeError:
        raise
    except Exception as error:  # a shape, an attribute or a weight that is not what its node needs
        raise GraphError(f"its graph contradicts itself ({_first_line(error)})") from error


def _head(output: ir.Value, order: int) -> Head:
    """Walk back from an output of the file to the convolution whose raw values it shows."""
    value, sigmoid, scale = output, False, 1.0
    passed: set[ir.Node] = set()
    while (node := value.producer()) is not None and node.op_type != "Conv":
        if node in passed:
            raise GraphError(f"its output {output.name} is made in a circle ({node.name})")
        passed.add(node)
        if node.op_type in REARRANGES and node.inputs[0] is not None:
            value = node.inputs[0]
        elif node.op_type == "Sigmoid" and node.inputs[0] is not None:
            value, sigmoid = node.inputs[0], True
        elif node.op_type in ("Mul", "Div") and (factor := _factor(node)) is not None:
            value, scale = factor[0], scale * factor[1]
        else:
            raise GraphError(f"its output {output.name} ends in {node.op_type} ({node.name}), not in a convolution")
    weights = constant_of(node.inputs[1]) if node is not None else None
    if value.name is None or weights is None:
        raise GraphError(f"its output {output.name} is made by no convolution")
    return Head(str(output.name), value.name, order, int(weights.shape[0]), sigmoid, scale)


def _factor(node: ir.Node) -> tuple[ir.Value, float] | None:
    """The value and the constant scalar that a multiplication or division combines."""
    left, right = node.inputs
    if left is None or right is None:
        return None
    for value, other in ((left, right), (right, left)):
        number = constant_of(other)
        if number is not None and number.size == 1 and (node.op_type == "Mul" or other is right):
            scalar = float(number.reshape(()))
            return value, scalar if node.op_type == "Mul" else 1.0 / scalar
    return None


def constant_of(value: ir.Value | None) -> NDArray[np.float32] | None:
    """The array of an initialiser or of a Constant node; None for a value that depends on the input."""
    if value is None:
        return None
    if value.const_value is not None:
        return np.asarray(value.const_value.numpy())
    node = value.producer()
    if node is not None and node.op_type == "Constant" and "value" in node.attributes:
        return np.asarray(node.attributes["value"].as_tensor().numpy())
    if node is not None and node.op_type == "Identity":
        return constant_of(node.inputs[0])
    return None


def _with_strides(detector: DetectorGraph) -> DetectorGraph:
    """Each head's stride, by the sizes of its maps for an input of 256 by 256."""
    side = 256
    shapes = fixed(detector, (side, side)).shapes
    heads = []
    for head in detector.heads:
        height, width = shapes[head.value][2:]
        if height != width or height == 0 or side % height:
            raise GraphError(f"its output {head.name} has maps of {width}x{height} for an input of {side}x{side}")
        heads.append(replace(head, stride=side // height))
    return replace(detector, heads=tuple(heads))


@dataclass(frozen=True)
class FixedGraph:
    """A detector's graph for one input size: constants folded, shapes known, outputs the raw heads, NCHW."""

    model: ir.Model
    shapes: Mapping[str, tuple[int, ...]]


def fixed(detector: DetectorGraph, size: tuple[int, int]) -> FixedGraph:
    """The graph for an input of `size` (height, width), with everything folded that does not depend on the image."""
    simplified = _simplified(ir.to_proto(detector.model), detector, size)
    inferred = onnx.shape_inference.infer_shapes(simplified, data_prop=True).graph
    values = (*inferred.value_info, *inferred.output, *inferred.input)
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
    return FixedGraph(ir.from_proto(simplified), shapes)


def _simplified(source: onnx.ModelProto, detector: DetectorGraph, size: tuple[int, int]) -> onnx.ModelProto:
    """The part of `source` that makes the heads, for one input size, constants folded."""
    import onnxsim  # late: half a second

    cut = onnx.ModelProto()
    cut.CopyFrom(source)
    del cut.graph.output[:], cut.graph.value_info[:]
    channels = {head.value: head.channels for head in detector.heads}
    cut.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, count, f"rows {i}", f"columns {i}"])
        for i, (name, count) in enumerate(channels.items())
    )
    image = next(entry for entry in cut.graph.input if entry.name == detector.input_name)
    image.CopyFrom(onnx.helper.make_tensor_value_info(image.name, onnx.TensorProto.FLOAT, (1, 3, *size)))
    try:
        needed = onnx.utils.Extractor(cut).extract_model([detector.input_name], list(channels))
        simplified, checked = onnxsim.simplify(needed)
        onnx.shape_inference.infer_shapes(simplified, strict_mode=True, data_prop=True)
    except Exception as error:  # a graph that contradicts itself: each library has its own kinds
        raise GraphError(f"its graph cannot be given an input of {size[1]}x{size[0]} ({_first_line(error)})") from error
    if not checked:
        raise GraphError(f"its graph computes something else once its input is {size[1]}x{size[0]}")
    assert isinstance(simplified, onnx.ModelProto)
    return simplified


def _of_any_size(detector: DetectorGraph) -> DetectorGraph:
    """A graph that was exported for one size, without the sizes that its exporter froze in it."""
    image = next(value for value in detector.model.graph.inputs if value.name == detector.input_name)
    sides = [] if image.shape is None else [side for side in image.shape[2:] if isinstance(side, int)]
    if len(sides) != 2:
        return detector
    simplified = _simplified(ir.to_proto(detector.model), detector, (sides[0], sides[1]))
    _relative_resizes(simplified)
    _relative_group_norms(simplified)
    return replace(detector, model=ir.from_proto(simplified))


def _relative_resizes(model: onnx.ModelProto) -> None:
    """Upsampling to a size that the exporter froze becomes upsampling by a factor, so that the input's size is free."""
    constants = _constants(model)
    frozen = [n for n in model.graph.node if n.op_type == "Resize" and len(n.input) > 3 and n.input[3] in constants]
    if not frozen:
        return
    inferred = onnx.shape_inference.infer_shapes(model)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in inferred.graph.value_info}
    for node in frozen:
        sizes, source = constants[node.input[3]], shapes.get(node.input[0], [])
        if len(source) != len(sizes) or not all(source):
            raise GraphError(f"its node {node.name} resizes to a fixed size from an unknown one")
        factors = np.array([size / side for size, side in zip(sizes, source, strict=True)], np.float32)
        name = f"{node.output[0]}.factors"
        model.graph.initializer.append(onnx.numpy_helper.from_array(factors, name))
        if not node.input[1]:  # up to opset 12 the region of interest must be there, if only empty
            node.input[1] = f"{node.output[0]}.region"
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(0, np.float32), node.input[1]))
        del node.input[2:]
        node.input.append(name)


def _relative_group_norms(model: onnx.ModelProto) -> None:
    """Group norm, exported as an instance norm between two reshapes, takes its sizes from what it reads."""
    graph = model.graph
    made, constants = {name: node for node in graph.node for name in node.output}, _constants(model)
    norms = [node for node in graph.node if node.op_type == "InstanceNormalization"]
    for norm in norms:
        split = made.get(norm.input[0])
        joins = [node for node in graph.node if node.op_type == "Reshape" and node.input[0] == norm.output[0]]
        if split is None or split.op_type != "Reshape" or len(joins) != 1:
            continue
        groups = len(constants[norm.input[1]])
        shape, name = f"{norm.output[0]}.shape", f"{norm.output[0]}.groups"
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, groups, -1], np.int64), name))
        split.input[1], joins[0].input[1] = name, shape
        place = list(graph.node).index(norm)
        graph.node.insert(place, onnx.helper.make_node("Shape", [split.input[0]], [shape], shape))


def _constants(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Initialisers and the results of Constant nodes."""
    made = [node for node in model.graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"]
    return {
        **{tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer},
        **{node.output[0]: onnx.numpy_helper.to_array(node.attribute[0].t) for node in made},
    }


def _first_line(error: Exception) -> str:
    lines: Sequence[str] = str(error).splitlines() or [type(error).__name__]
    return lines[0][:120]
