"""Averages before pointwise convolutions folded: pooling and a 1×1 convolution are one convolution with a stride.

A mean over a k×k window in steps of k, and then w·x + b, is the sum of w/k² times each pixel of the window: a
convolution of k×k with stride k. Networks of the ResNet-D kind shrink their shortcuts like this.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from retinaface_edge.calibration.graph.onnx_graph import (
    add_constant,
    attribute,
    constant_of,
    name_of,
    only_reader,
)

from .graph_pass import graph_pass, weights_are_constants


def no_average_before_a_pointwise_convolution(model: ir.Model) -> str | None:
    """No average that this pass can fold is left."""
    left = [node.name for node in model.graph if _foldable(node) is not None]
    return f"the average {left[0]} is left" if left else None


@graph_pass(requires=[weights_are_constants], ensures=[no_average_before_a_pointwise_convolution])
def fold_average(model: ir.Model) -> ir.Model:
    """The graph with every average over whole windows, read by one 1×1 convolution alone, as part of that."""
    if no_average_before_a_pointwise_convolution(model) is None:
        return model
    changed = model.clone()
    for average in list(changed.graph):
        convolution = _foldable(average)
        if convolution is None:
            continue
        kernel = list(attribute(average, "kernel_shape", []))
        weights = constant_of(convolution, 1).astype(np.float64) / (kernel[0] * kernel[1])
        spread = np.broadcast_to(weights, (*weights.shape[:2], *kernel)).astype(np.float32)
        name = name_of(convolution.inputs[1])
        del changed.graph.initializers[name]
        convolution.replace_input_with(1, None)
        convolution.replace_input_with(1, add_constant(changed.graph, name, spread))
        convolution.replace_input_with(0, average.inputs[0])
        for key in ("kernel_shape", "strides"):
            convolution.attributes.add(ir.AttrInt64s(key, kernel))
        changed.graph.remove(average, safe=True)
    return changed


def _foldable(average: ir.Node) -> ir.Node | None:
    """The convolution that an average can be folded into, if there is one."""
    if average.op_type != "AveragePool":
        return None
    convolution = only_reader(average.outputs[0])
    kernel, source = list(attribute(average, "kernel_shape", [])), average.inputs[0]
    if convolution is None or convolution.op_type != "Conv" or convolution.inputs[0] is not average.outputs[0]:
        return None
    weights = convolution.inputs[1]
    shares = weights is None or len(weights.uses()) > 1 or constant_of(convolution, 1).shape[2:] != (1, 1)
    windows = list(attribute(average, "strides", [1, 1])) == kernel and not any(attribute(average, "pads", []))
    plain = (
        list(attribute(convolution, "strides", [1, 1])) == [1, 1]
        and not any(attribute(convolution, "pads", []))
        and attribute(convolution, "group", 1) == 1
        and attribute(average, "auto_pad", "NOTSET") == "NOTSET"
    )
    sizes = None if source is None or source.shape is None else source.shape[2:]
    # A last window that is not full is averaged over fewer pixels; without sizes, only `ceil_mode` could make one.
    partial = attribute(average, "ceil_mode", 0) and (
        sizes is None or any(not isinstance(n, int) or n % k for n, k in zip(sizes, kernel, strict=True))
    )
    return convolution if windows and plain and not shares and not partial else None
