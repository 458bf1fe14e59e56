"""ONNX to TFLite: a table of operations, each lowered by a small function; NHWC throughout.

The values of the ONNX graph are NCHW between its first and last Transpose; here they are NHWC everywhere, so those
Transposes vanish. A QDQ graph becomes int8: its uint8 integers shift by 128, which changes no value.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx_ir as ir

from retinaface_edge.calibration.graph.onnx_graph import read_graph
from retinaface_edge.runtime.ops.postprocess import QuantParams

from ..graph.passes.uint8_stem import uint8_stem
from .tflite_activations import lower_leaky_relu, refuse_unfused
from .tflite_arithmetic import lower_add, lower_scale
from .tflite_context import LARGEST_SIDE, SHIFT, Context, Lowered, LoweringError, described
from .tflite_convolutions import lower_conv
from .tflite_layout import lower_concat, lower_reshape, lower_slice, lower_split, lower_transpose
from .tflite_normalisation import lower_group_normalization, lower_instance_normalization
from .tflite_pools import lower_average_pool, lower_max_pool
from .tflite_quantisers import lower_cast, lower_dequantize, lower_quantize, lower_sub
from .tflite_resize import lower_resize
from .tflite_schema import Graph, Tensor

__all__ = ["LARGEST_SIDE", "LOWERINGS", "SHIFT", "LoweringError", "lower_tflite"]

MALFORMED = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)
"""What reading a node or constant raises that does not follow ONNX's own rules."""

LOWERINGS: Mapping[str, Callable[[Context, ir.Node], None]] = {
    "Add": lower_add,
    "AveragePool": lower_average_pool,
    "Cast": lower_cast,
    "Clip": refuse_unfused,
    "Concat": lower_concat,
    "Conv": lower_conv,
    "DequantizeLinear": lower_dequantize,
    "Div": lower_scale,
    "GroupNormalization": lower_group_normalization,
    "InstanceNormalization": lower_instance_normalization,
    "LeakyRelu": lower_leaky_relu,
    "MaxPool": lower_max_pool,
    "Mul": lower_scale,
    "QuantizeLinear": lower_quantize,
    "Relu": refuse_unfused,
    "Reshape": lower_reshape,
    "Resize": lower_resize,
    "Slice": lower_slice,
    "Split": lower_split,
    "Sub": lower_sub,
    "Transpose": lower_transpose,
    "Upsample": lower_resize,
}
"""What each ONNX operation becomes: a function adds its operators to the context, or raises `LoweringError`."""

# A damaged graph is refused here by one sentence; the reader's own warnings would stand beside it on the terminal.
logging.getLogger("onnx_ir").addHandler(logging.NullHandler())


def lower_tflite(model: onnx.ModelProto, quant_params: Mapping[str, QuantParams], image_columns: int = 2) -> Graph:
    """Lower a graph exported by this project, FP32 or QDQ.

    `quant_params` gives the uint8 quantisation parameters of values that the QDQ graph leaves float and TFLite needs as
    integers: those between a convolution and its activation, and the outputs. An FP32 graph needs none.
    So many `image_columns` are one column for the first convolution (`tflite_folding`). Raises `LoweringError`.
    """
    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    try:
        model_graph = read_graph(model)
        graph = (model_graph if quantised else uint8_stem(model_graph)).graph
        context = Context(graph, quant_params, image_columns)
        for value in graph.inputs:
            _add_input(context, value)
        for node in graph:
            if node not in context.fused:
                _lower(context, node)
        return context.finish(graph)
    except (
        *MALFORMED,
        RuntimeError,
    ) as error:  # onnx_ir's own, which quotes the whole graph
        raise LoweringError(f"the graph is malformed ({_first_cause(error)!r}); export the model again") from error


def _first_cause(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _first_cause(error.__cause__)


def _add_input(context: Context, value: ir.Value) -> None:
    shape = tuple(side if isinstance(side, int) else 0 for side in value.shape or ())
    if value.dtype not in (ir.DataType.UINT8, ir.DataType.FLOAT) or len(shape) != 4:
        raise LoweringError(f"the input {value.name!r} is not a uint8 image or floats of shape (1, h, w, c)")
    is_image = value.dtype == ir.DataType.UINT8
    tensor = context.add_tensor(Tensor(value.name or "", np.dtype(np.uint8 if is_image else np.float32), shape))
    context.values[value] = Lowered(shape, integer=tensor) if is_image else Lowered(shape, real=tensor)


def _lower(context: Context, node: ir.Node) -> None:
    if node.op_type not in LOWERINGS:
        raise LoweringError(f"node {node.name or ''!r} has type {node.op_type}, which has no TFLite lowering here")
    try:
        LOWERINGS[node.op_type](context, node)
    except MALFORMED as error:
        raise LoweringError(f"{described(node)} is malformed ({error!r}); export the model again") from error
