"""ONNX Runtime sessions and shape inference: the one place that runs an ONNX model or asks for its shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from retinaface_edge.runtime.spec import Contract


def session(model: onnx.ModelProto, values: Sequence[str] | None = None) -> onnxruntime.InferenceSession:
    """The model in ONNX Runtime on the CPU, silent. With `values`, it gives those float32 values of the graph."""
    if values is not None:
        watched = onnx.ModelProto()
        watched.CopyFrom(model)
        del watched.graph.output[:]
        watched.graph.output.extend(helper.make_tensor_value_info(v, onnx.TensorProto.FLOAT, None) for v in values)
        model = watched
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto, spec: Contract, image: NDArray[Any]) -> list[NDArray[np.float32]]:
    """Outputs of an ONNX model for one image, in the order of `spec.outputs`."""
    names = [output.name for output in spec.outputs]
    return session(model).run(names, {spec.input_name: image})  # type: ignore[no-any-return]


def inferred_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """The shape of every value that a node computes, by name. Raises `onnx.shape_inference.InferenceError`."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.value_info, *graph.output)}
