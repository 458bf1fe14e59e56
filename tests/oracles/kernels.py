"""Kernels against the integer reference, layer by layer.

Errors of one layer grow in the next, so every layer is fed the reference's input and its result alone is compared. For
LiteRT a layer is one operator. For OpenVINO, which fuses an activation with its convolution, it is what lies between
the integers of the QDQ graph: from one QuantizeLinear to the next, or to an output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import openvino
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray
from onnx import TensorProto, helper

from retinaface_edge.calibration.graph.onnx_graph import read_graph, to_proto
from retinaface_edge.export.graph.passes.float_biases import float_biases
from retinaface_edge.export.lower.tflite import SHIFT
from retinaface_edge.export.lower.tflite_schema import Graph, Operator, Tensor, serialise
from retinaface_edge.runtime.backends.openvino import core

LITERT_KERNELS = {
    "xnnpack": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}
"""LiteRT's kernel sets: its default, XNNPACK and its own where XNNPACK has none; its own; the defining ones."""

Arrays = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class Agreement:
    """One layer by one kernel set: how far its integers are from the reference's, in steps of the result's grid.

    `counts[d]` is the number of elements that are d steps off. `ran` says what computed it: "delegate" or "own" for
    LiteRT, the precision of its main operation for OpenVINO. `clipped` is the share of elements that the reference cuts
    off before the activation, where a kernel that fuses both has the value itself.
    """

    kernels: str
    operator: str
    tensor: str
    ran: str
    counts: tuple[int, ...]
    clipped: float = 0.0

    @property
    def elements(self) -> int:
        """How many elements were compared."""
        return sum(self.counts)

    def within(self, steps: int) -> float:
        """The share of elements that are at most `steps` off."""
        return sum(self.counts[: steps + 1]) / max(self.elements, 1)


def compare_litert(graph: Graph, values: Arrays, kernels: str) -> Iterator[Agreement]:
    """Every operator of an INT8 `graph` by one of `LITERT_KERNELS`, given the reference's `values` of its tensors."""
    for operator in graph.operators:
        single, feeds = _single(graph, operator)
        interpreter = Interpreter(
            model_content=serialise(single), num_threads=1, experimental_op_resolver_type=LITERT_KERNELS[kernels]
        )
        interpreter.allocate_tensors()
        for index, source in zip(single.inputs, feeds, strict=True):
            interpreter.set_tensor(index, values[source])
        interpreter.invoke()
        # An operator that XNNPACK lacks silently runs on LiteRT's own kernel, which proves nothing about XNNPACK.
        delegated = any(entry["op_name"] == "DELEGATE" for entry in interpreter._get_ops_details())
        yield Agreement(
            kernels,
            operator.name,
            graph.tensors[operator.outputs[0]].name,
            "delegate" if delegated else "own",
            _counts(interpreter.get_tensor(single.outputs[0]), values[operator.outputs[0]]),
        )


def compare_openvino(model: onnx.ModelProto, graph: Graph, values: Arrays) -> Iterator[Agreement]:
    """Every layer of the QDQ graph `model` by OpenVINO; `graph` is `model` lowered to TFLite, `values` its tensors."""
    indices = {tensor.name: index for index, tensor in enumerate(graph.tensors)}
    folded = to_proto(float_biases(read_graph(model))).graph
    producers = {name: node for node in folded.node for name in node.output}
    ends = [node.output[0] for node in folded.node if node.op_type == "QuantizeLinear"]
    activated = {op.outputs[0]: op.inputs for op in graph.operators if op.name == "LEAKY_RELU"}
    engine = core()
    for end in (*ends, *(output.name for output in folded.output)):
        index = indices[producers[end].input[0] if end in ends else end]
        layer = _between(folded, producers, end, {name: graph.tensors[i].shape for name, i in indices.items()})
        compiled = engine.compile_model(
            engine.read_model(layer.SerializeToString()),
            "CPU",
            {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"},
        )
        feeds = {entry.name: _as_onnx(entry.name, producers, indices, values) for entry in layer.graph.input}
        (result,) = compiled(feeds).values()
        yield Agreement(
            "openvino",
            "+".join(node.op_type for node in layer.graph.node if node.op_type in _NAMED),
            graph.tensors[index].name,
            _precision(compiled),
            _counts(_as_tflite(result, graph.tensors[index]), values[index]),
            next((float(np.mean(values[i] == -SHIFT)) for i in activated.get(index, ())), 0.0),
        )


_NAMED = ("Add", "AveragePool", "Clip", "Concat", "Conv", "LeakyRelu", "MaxPool", "Relu", "Resize")
"""The node types that name a layer; the others only move or convert."""


def _single(graph: Graph, operator: Operator) -> tuple[Graph, list[int]]:
    """A graph of one operator, and which tensors of `graph` its inputs are."""
    used = list(dict.fromkeys((*operator.inputs, *operator.outputs)))
    place = {index: position for position, index in enumerate(used)}
    feeds = [i for i in dict.fromkeys(operator.inputs) if graph.tensors[i].data is None]
    moved = replace(
        operator,
        inputs=tuple(place[i] for i in operator.inputs),
        outputs=tuple(place[i] for i in operator.outputs),
    )
    tensors = [graph.tensors[i] for i in used]
    return Graph(tensors, [moved], [place[i] for i in feeds], list(moved.outputs)), feeds


def _between(
    graph: onnx.GraphProto,
    producers: Mapping[str, onnx.NodeProto],
    end: str,
    shapes: Mapping[str, tuple[int, ...]],
) -> onnx.ModelProto:
    """The nodes from the nearest integers, or the image, up to the value `end`, as a model."""
    needed: set[str] = set()
    starts: list[str] = []
    pending = [end]
    while pending:
        name = pending.pop()
        node = producers.get(name)
        if name in needed or not name:
            continue
        needed.add(name)
        if name == "image" or (node is not None and node.op_type == "QuantizeLinear" and name != end):
            starts.append(name)
        elif node is not None:
            pending.extend(node.input)
    inputs = []
    for name in starts:
        shape = shapes[name if name == "image" else producers[name].input[0]]
        if name != "image":
            shape = (shape[0], shape[3], shape[1], shape[2])
        inputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8, shape))
    kind = TensorProto.UINT8 if producers[end].op_type == "QuantizeLinear" else TensorProto.FLOAT
    layer = helper.make_graph(
        [n for n in graph.node if n.output[0] in needed and n.output[0] not in starts],
        "layer",
        inputs,
        [helper.make_tensor_value_info(end, kind, None)],
        [t for t in graph.initializer if t.name in needed],
    )
    return helper.make_model(layer, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _as_onnx(
    name: str, producers: Mapping[str, onnx.NodeProto], indices: Mapping[str, int], values: Arrays
) -> NDArray[np.uint8]:
    """The reference's integers as the QDQ graph holds them: uint8, NCHW."""
    if name == "image":
        return np.asarray(values[indices["image"]], np.uint8)
    integers = values[indices[producers[name].input[0]]].astype(np.int16) + SHIFT
    return np.ascontiguousarray(integers.astype(np.uint8).transpose(0, 3, 1, 2))


def _as_tflite(result: NDArray[Any], tensor: Tensor) -> NDArray[np.int64]:
    """OpenVINO's uint8 NCHW integers, or float NHWC output, as int8 integers of `tensor`."""
    if result.dtype == np.uint8:
        return np.asarray(result.transpose(0, 2, 3, 1), np.int64) - SHIFT
    assert tensor.quantisation is not None
    steps = np.rint(result / tensor.quantisation.scales[0]) + tensor.quantisation.zero_points[0]
    return np.asarray(np.clip(steps, -SHIFT, SHIFT - 1), np.int64)


def _counts(ours: NDArray[Any], reference: NDArray[Any]) -> tuple[int, ...]:
    return tuple(np.bincount(np.abs(ours.astype(np.int64) - reference).reshape(-1)).tolist())


def _precision(compiled: openvino.CompiledModel) -> str:
    """The run-time precision of the layer's convolution, or of its element-wise operation."""
    found = {}
    for operation in compiled.get_runtime_model().get_ops():
        info = operation.get_rt_info()
        found[str(info["layerType"].astype(str))] = str(info["runtimePrecision"].astype(str))
    return next((found[kind] for kind in ("Convolution", "Eltwise", "Subgraph") if kind in found), "-")
