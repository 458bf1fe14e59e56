"""Small graphs of floats, and the same numbers by every backend: ONNX Runtime, LiteRT and OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from onnx import TensorProto, helper, numpy_helper

from retinaface_edge.export.lower.openvino import lower_openvino
from retinaface_edge.export.lower.tflite import lower_tflite
from retinaface_edge.export.lower.tflite_schema import Graph, serialise
from retinaface_edge.runtime.backends.openvino import core

LEAST_DECIBELS = 100.0
NHWC = {"perm": [0, 2, 3, 1]}
KERNELS = (OpResolverType.AUTO, OpResolverType.BUILTIN_REF)


def node(kind: str, inputs: Sequence[str], name: str = "", **attributes: Any) -> onnx.NodeProto:
    name = name or kind.lower()
    return helper.make_node(kind, list(inputs), [name], name, **attributes)


def between_transposes(
    nodes: Sequence[onnx.NodeProto],
    shape: tuple[int, int, int],
    constants: dict[str, Any] | None = None,
    opset: int = 18,
) -> onnx.ModelProto:
    """NCHW operations on "x" of `shape` (height, width, channels) as a graph of floats; the last gives its output."""
    last = nodes[-1].output[0]
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["image"], ["x"], "x", perm=[0, 3, 1, 2]),
            *nodes,
            helper.make_node("Transpose", [last], ["out"], "out", perm=NHWC["perm"]),
        ],
        "operations",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, *shape])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, "h", "w", "c"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def by_onnxruntime(model: onnx.ModelProto, image: np.ndarray, outputs: Sequence[str] | None = None) -> list[np.ndarray]:
    """The definition: unoptimised, for a fusion may round otherwise."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return [np.asarray(array) for array in session.run(outputs, {session.get_inputs()[0].name: image})]


def by_litert(graph: Graph, image: np.ndarray, kernels: OpResolverType) -> np.ndarray:
    interpreter = Interpreter(model_content=serialise(graph), experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    found = {detail["name"]: tuple(detail["shape"]) for detail in interpreter.get_tensor_details()}
    assert {t.name: found[t.name] for t in graph.tensors} == {t.name: t.shape for t in graph.tensors}
    interpreter.set_tensor(graph.inputs[0], image)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(graph.outputs[0]))


def by_openvino(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    spec = cast(Any, SimpleNamespace(outputs=[SimpleNamespace(name="out")]))
    xml, weights = lower_openvino(model, spec)
    compiled = core().compile_model(core().read_model(xml, weights), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.asarray(compiled([image])[0])


def assert_exact(model: onnx.ModelProto, image: np.ndarray | None = None, openvino_too: bool = True) -> Graph:
    """That every backend is within 100 dB of ONNX Runtime; gives the TFLite graph."""
    if image is None:
        shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
        image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    (expected,) = by_onnxruntime(model, image)
    lowered = lower_tflite(model, {})
    found = {str(kernels): by_litert(lowered, image, kernels) for kernels in KERNELS}
    if openvino_too:
        found["openvino"] = by_openvino(model, image)
    for name, got in found.items():
        assert got.shape == expected.shape, name
        assert decibels(got, expected) >= LEAST_DECIBELS, name
    return lowered


def decibels(got: np.ndarray, expected: np.ndarray) -> float:
    """The ratio of the expected values' power to that of the difference; infinite where nothing differs."""
    power, error = (float(np.sum(np.square(a, dtype=np.float64))) for a in (expected, got - expected))
    return 10.0 * np.log10(max(power, 1e-300) / error) if error > 0.0 else np.inf


def names(graph: Graph) -> list[str]:
    return [operator.name for operator in graph.operators]
