"""LiteRT's reference kernels, every tensor kept; and graphs of one operator for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from retinaface_edge.export.lower.tflite_schema import Graph, Operator, Quantisation, Tensor, serialise
from retinaface_edge.runtime.ops.postprocess import QuantParams

INT8 = np.arange(-128, 128, dtype=np.int8)


def litert(graph: Graph, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Every tensor of the graph, by LiteRT's reference kernels."""
    interpreter = Interpreter(
        model_content=serialise(graph),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    for index, array in zip(graph.inputs, inputs, strict=True):
        interpreter.set_tensor(index, array)
    interpreter.invoke()
    return [interpreter.get_tensor(i) if t.data is None else t.data for i, t in enumerate(graph.tensors)]


def xnnpack(graph: Graph, inputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The one output of a graph by LiteRT's default kernels, which are XNNPACK's."""
    interpreter = Interpreter(model_content=serialise(graph), num_threads=1)
    interpreter.allocate_tensors()
    assert any(entry["op_name"] == "DELEGATE" for entry in interpreter._get_ops_details())
    for index, array in zip(graph.inputs, inputs, strict=True):
        interpreter.set_tensor(index, array)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(graph.outputs[0]))


def elementwise(
    name: str, terms: Sequence[QuantParams], result: QuantParams, options: dict[str, Any], size: int
) -> Graph:
    """One operator on int8 tensors of shape (1, size, 1, 1)."""
    tensors = [
        Tensor(str(index), np.dtype(np.int8), (1, size, 1, 1), Quantisation((quant.scale,), (quant.zero_point - 128,)))
        for index, quant in enumerate((*terms, result))
    ]
    inputs = tuple(range(len(terms)))
    return Graph(tensors, [Operator(name, inputs, (len(terms),), options)], inputs, [len(terms)])
