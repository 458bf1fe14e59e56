"""Rebuilds a detector's graph in the form of the contract: bytes of an image in, raw heads out, NHWC.

Each operator is written in one normal form, so that calibration and lowering see the same graph whichever exporter
wrote the file. Normalisation keeps the subtraction of the mean as a step of its own; division by the deviation and the
order of the colours go into the weights of the layers that read the image, and a head's scale into the weights of its
last convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from retinaface_edge.runtime.spec import Colour, Spec

from .detector_graph import DetectorGraph, FixedGraph, GraphError, Head, constant_of, fixed, foreign_graph
from .passes.fold_average import fold_average
from .shared_features import shared_features

IR_VERSION = 10
PRODUCER = "retinaface-edge"


@dataclass
class _Rebuild:
    """The graph under construction: nodes and constants so far, and what each of the old values is called now."""

    source: FixedGraph
    spec: Spec
    input_name: str
    heads: Mapping[str, tuple[str, float]]
    """By the old name of a head's value: the name of its convolution, and the factor of its weights and bias."""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    convolutions: int = 0

    def unique(self, name: str) -> str:
        """`name`, or the first of it with underscores that no node has."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def value(self, value: ir.Value | None) -> str:
        """The present name of an old value."""
        assert value is not None and value.name is not None
        return self.renamed[value.name]

    def add(self, node: ir.Node, op_type: str, inputs: Sequence[str], name: str, **attributes: Any) -> None:
        """Add a node whose only result is called as it is."""
        self.nodes.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        self.renamed[str(node.outputs[0].name)] = name


def contract_form(detector: DetectorGraph, outputs: Mapping[str, Head], spec: Spec, opset: int) -> onnx.ModelProto:
    """The FP32 graph of `spec` that computes what `detector` does.

    `outputs` says which head each output of the spec is, by the output's name. Raises `GraphError` for an operator
    that the compiler does not know, and for maps that are not the sizes that the spec promises.
    """
    with foreign_graph():
        return _contract_form(detector, outputs, spec, opset)


def _contract_form(detector: DetectorGraph, outputs: Mapping[str, Head], spec: Spec, opset: int) -> onnx.ModelProto:
    graph = fixed(detector, (spec.height, spec.width))
    heads = {head.value: (f"head.{name}", head.scale) for name, head in outputs.items()}
    rebuild = _Rebuild(graph, spec, detector.input_name, heads)
    _add_front(rebuild)
    for node in graph.model.graph:
        if node.op_type == "Constant":
            continue
        try:
            operator = OPERATORS[node.op_type]
        except KeyError:
            raise GraphError(
                f"its node {node.name} is a {node.op_type}, which cannot be compiled; known: {', '.join(OPERATORS)}"
            ) from None
        operator(rebuild, node)
    for output in spec.outputs:
        head = outputs[output.name]
        _, height, width, channels = output.shape
        if graph.shapes[head.value] != (1, channels, height, width):
            raise GraphError(f"its output {head.name} has the shape {graph.shapes[head.value]}, not {output.shape}")
        transpose = f"{rebuild.renamed[head.value]}.transpose"
        inputs = [rebuild.renamed[head.value]]
        rebuild.nodes.append(helper.make_node("Transpose", inputs, [output.name], transpose, perm=[0, 2, 3, 1]))
    if spec.features:
        _add_features(rebuild, outputs.values())
    return _model(rebuild, opset)


def _add_features(rebuild: _Rebuild, heads: Iterable[Head]) -> None:
    """The outputs `feature_*`: what the heads of each stride read."""
    features = shared_features(rebuild.source, heads)
    for output in rebuild.spec.features:
        found, channels = features[output.stride], output.shape[3]
        if found.channels != channels:
            raise GraphError(
                f"its features at stride {output.stride} have {found.channels} channels, and the dense branch was made "
                f"for {channels}"
            )
        source = rebuild.renamed[found.value]
        transpose = helper.make_node("Transpose", [source], [output.name], f"{source}.feature", perm=[0, 2, 3, 1])
        rebuild.nodes.append(transpose)


def _add_front(rebuild: _Rebuild) -> None:
    spec, node = rebuild.spec, helper.make_node
    mean = spec.mean if spec.colour == Colour.BGR else spec.mean[::-1]
    rebuild.constants["mean"] = np.array(mean, np.float32)
    centred, planes = "image.cast.sub", "image.cast.sub.transpose"
    rebuild.nodes += [
        node("Cast", ["image"], ["image.cast"], "image.cast", to=TensorProto.FLOAT),
        node("Sub", ["image.cast", "mean"], [centred], centred),
        node("Transpose", [centred], [planes], planes, perm=[0, 3, 1, 2]),
    ]
    rebuild.taken |= {"image.cast", centred, planes}
    rebuild.renamed[rebuild.input_name] = planes


def _convolution(rebuild: _Rebuild, node: ir.Node) -> None:
    weights, bias = _array(node, 1).astype(np.float64), np.zeros(_array(node, 1).shape[0])
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = _array(node, 2).astype(np.float64)
    source = node.inputs[0]
    if source is not None and source.name == rebuild.input_name:
        if weights.shape[1] != 3:
            raise GraphError(f"its node {node.name} reads {weights.shape[1]} channels of the image, not 3")
        weights = weights / np.array(rebuild.spec.std).reshape(1, 3, 1, 1)
        weights = weights[:, ::-1] if rebuild.spec.colour == Colour.RGB else weights
    name, scale = rebuild.heads.get(str(node.outputs[0].name), (f"layer.{rebuild.convolutions:02d}", 1.0))
    rebuild.convolutions += 1
    name = rebuild.unique(name)
    rebuild.constants[f"{name}.weight"] = np.ascontiguousarray(weights * scale, np.float32)
    rebuild.constants[f"{name}.bias"] = (bias * scale).astype(np.float32)
    kernel = list(weights.shape[2:])
    attributes = {
        "dilations": _ints(node, "dilations", [1, 1]),
        "group": int(_attribute(node, "group", 1)),
        "kernel_shape": kernel,
        "pads": _pads(rebuild, node, kernel),
        "strides": _ints(node, "strides", [1, 1]),
    }
    rebuild.add(node, "Conv", [rebuild.value(source), f"{name}.weight", f"{name}.bias"], name, **attributes)


def _activation(rebuild: _Rebuild, node: ir.Node) -> None:
    source = rebuild.value(node.inputs[0])
    name = rebuild.unique(f"{source}.activation")
    if node.op_type == "LeakyRelu":
        rebuild.add(node, "LeakyRelu", [source], name, alpha=float(_attribute(node, "alpha", 0.01)))
    elif node.op_type == "Relu":
        rebuild.add(node, "Relu", [source], name)
    else:
        rebuild.constants.setdefault("clip.low", np.array(_limit(node, 1, "min"), np.float32))
        rebuild.constants.setdefault("clip.high", np.array(_limit(node, 2, "max"), np.float32))
        limits = tuple(float(rebuild.constants[end]) for end in ("clip.low", "clip.high"))
        if limits != (_limit(node, 1, "min"), _limit(node, 2, "max")):
            raise GraphError(f"its node {node.name} clips to other limits than {limits}")
        rebuild.add(node, "Clip", [source, "clip.low", "clip.high"], name)


def _limit(node: ir.Node, index: int, name: str) -> float:
    if len(node.inputs) > index and node.inputs[index] is not None:
        return float(_array(node, index).reshape(()))
    return float(_attribute(node, name, np.nan))


def _elementwise(rebuild: _Rebuild, node: ir.Node) -> None:
    inputs = [_operand(rebuild, value) for value in node.inputs]
    name = rebuild.unique(f"{inputs[0]}.{node.op_type.lower()}")
    attributes = {"axis": 1} if node.op_type == "Concat" else {}
    if node.op_type == "Concat" and int(_attribute(node, "axis", 1)) not in (1, -3):
        raise GraphError(f"its node {node.name} joins along axis {_attribute(node, 'axis', 1)}, not along channels")
    rebuild.add(node, node.op_type, inputs, name, **attributes)


def _pool(rebuild: _Rebuild, node: ir.Node) -> None:
    source = rebuild.value(node.inputs[0])
    kernel = _ints(node, "kernel_shape", [])
    pads, strides = _pads(rebuild, node, kernel), _ints(node, "strides", [1, 1])
    before, after = (rebuild.source.shapes[str(value.name)] for value in (node.inputs[0], node.outputs[0]) if value)
    floor = [(before[axis + 2] + pads[axis] + pads[axis + 2] - kernel[axis]) // strides[axis] + 1 for axis in (0, 1)]
    if list(after[2:]) != floor or max(_ints(node, "dilations", [1, 1])) > 1:
        raise GraphError(f"its node {node.name} rounds its size up; give an input size that its strides divide")
    if node.op_type == "AveragePool" and max(pads) and not int(_attribute(node, "count_include_pad", 0)):
        raise GraphError(f"its node {node.name} averages over fewer values at the edges, which cannot be compiled")
    name = rebuild.unique(f"{source}.{node.op_type.lower()}")
    rebuild.add(node, node.op_type, [source], name, kernel_shape=kernel, pads=pads, strides=strides)


def _resize(rebuild: _Rebuild, node: ir.Node) -> None:
    """Nearest-neighbour upsampling by whole factors, for which the coordinate modes of exporters agree."""
    source = node.inputs[0]
    assert source is not None
    before, after = (rebuild.source.shapes[str(value.name)][2:] for value in (source, node.outputs[0]))
    mode = str(_attribute(node, "mode", "nearest"))
    exact = [big % small == 0 for small, big in zip(before, after, strict=True)]
    if mode != "nearest" or not all(exact):
        raise GraphError(f"its node {node.name} resizes {before} to {after} by {mode}, not by whole factors by nearest")
    factors = [big // small for small, big in zip(before, after, strict=True)]
    name = rebuild.unique(f"{rebuild.value(source)}.resize")
    scales = f"upsample.{factors[0]}x{factors[1]}"
    rebuild.constants[scales] = np.array([1, 1, *factors], np.float32)
    attributes = {"coordinate_transformation_mode": "asymmetric", "mode": "nearest", "nearest_mode": "floor"}
    rebuild.add(node, "Resize", [rebuild.value(source), "", scales], name, **attributes)


def _operand(rebuild: _Rebuild, value: ir.Value | None) -> str:
    """The present name of a value, or of a constant, which is added to the graph."""
    array = constant_of(value)
    if array is None:
        return rebuild.value(value)
    name = f"constant.{len(rebuild.constants)}"
    rebuild.constants[name] = array
    return name


def _with_constants(rebuild: _Rebuild, node: ir.Node) -> None:
    """The parts of a group norm, kept as PyTorch writes them: Reshape, InstanceNormalization, Reshape, Mul, Add."""
    inputs = [_operand(rebuild, value) for value in node.inputs]
    name = rebuild.unique(f"{inputs[0]}.{node.op_type.lower()}")
    attributes = {"epsilon": float(_attribute(node, "epsilon", 1e-5))} if node.op_type.endswith("Normalization") else {}
    rebuild.add(node, node.op_type, inputs, name, **attributes)


def _nothing(rebuild: _Rebuild, node: ir.Node) -> None:
    assert node.inputs[0] is not None
    rebuild.renamed[str(node.outputs[0].name)] = rebuild.value(node.inputs[0])


OPERATORS: Mapping[str, Callable[[_Rebuild, ir.Node], None]] = {
    "Conv": _convolution,
    "Relu": _activation,
    "LeakyRelu": _activation,
    "Clip": _activation,
    "Add": _elementwise,
    "Concat": _elementwise,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "Resize": _resize,
    "Upsample": _resize,
    "Reshape": _with_constants,
    "InstanceNormalization": _with_constants,
    "Mul": _with_constants,
    "Identity": _nothing,
    "Dropout": _nothing,
}


def _array(node: ir.Node, index: int) -> NDArray[Any]:
    array = constant_of(node.inputs[index])
    if array is None:
        raise GraphError(f"its node {node.name} ({node.op_type}) has weights that depend on the image")
    return array


def _attribute(node: ir.Node, name: str, default: Any) -> Any:
    return node.attributes[name].value if name in node.attributes else default


def _ints(node: ir.Node, name: str, default: Sequence[int]) -> list[int]:
    return [int(value) for value in _attribute(node, name, default)]


def _pads(rebuild: _Rebuild, node: ir.Node, kernel: Sequence[int]) -> list[int]:
    """Padding above, left, below, right; `auto_pad` is spelled out."""
    mode = str(_attribute(node, "auto_pad", "NOTSET"))
    if mode == "NOTSET":
        return _ints(node, "pads", [0, 0, 0, 0])
    if mode == "VALID":
        return [0, 0, 0, 0]
    source = node.inputs[0]
    assert source is not None
    sides, strides = rebuild.source.shapes[str(source.name)][2:], _ints(node, "strides", [1, 1])
    dilations = _ints(node, "dilations", [1, 1])
    total = [
        max((-(-side // step) - 1) * step + (size - 1) * dilation + 1 - side, 0)
        for side, step, size, dilation in zip(sides, strides, kernel, dilations, strict=True)
    ]
    small = [amount // 2 for amount in total]
    large = [amount - less for amount, less in zip(total, small, strict=True)]
    return [*small, *large] if mode == "SAME_UPPER" else [*large, *small]


def _model(rebuild: _Rebuild, opset: int) -> onnx.ModelProto:
    spec = rebuild.spec
    graph = helper.make_graph(
        rebuild.nodes,
        "retinaface",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, list(spec.input_shape))],
        [
            helper.make_tensor_value_info(output.name, TensorProto.FLOAT, list(output.shape))
            for output in spec.with_features.outputs
        ],
        [numpy_helper.from_array(array, name) for name, array in rebuild.constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION, producer_name=PRODUCER
    )
    model = ir.to_proto(fold_average(ir.from_proto(model)))
    onnx.checker.check_model(model, full_check=True)
    return model
