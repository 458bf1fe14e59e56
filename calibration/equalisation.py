"""Cross-layer equalisation: channels of one tensor brought to like ranges, without changing what the model computes.

LeakyReLU is positively homogeneous: dividing a channel by s before it and multiplying the next convolution's weights
for that channel by s changes nothing (Nagel et al., arXiv 1906.04721, section 4.1). A tensor has one scale for all
channels, so channels of like range waste fewer of its 256 steps. Weights have a scale for each output channel, which
absorbs s in the convolution before, and in a depthwise convolution after. In a dense one after, s divides the
difference between activations and weights; weights are rounded together (`rounding.py`) and bear the larger part.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from .observers import Observation

SMALLEST = 1e-30
ACTIVATIONS_PART = 0.75
"""How much of the difference dense convolutions' weights take over: 0 none, 1 all. 0.75 had the least drift."""
SMALLEST_SHARE = 1e-3
"""A channel is treated as having at least this share of the largest channel's range."""


def equalise(
    model: onnx.ModelProto, observations: Mapping[str, Observation]
) -> tuple[onnx.ModelProto, dict[str, Observation]]:
    """The equalised model, and the observations as it would have given them.

    Every convolution whose activation is read by convolutions alone is equalised with those.
    """
    equalised = onnx.ModelProto()
    equalised.CopyFrom(model)
    graph = equalised.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    changed = {name: array.astype(np.float64) for name, array in weights.items()}
    producers = {node.output[0]: node for node in graph.node}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    scaled = dict(observations)
    for node in graph.node:
        after = readers.get(node.output[0], [])
        if node.op_type not in ("LeakyRelu", "Relu") or any(reader.op_type != "Conv" for reader in after):
            continue
        before = producers[node.input[0]]
        factor = _factor(observations[before.output[0]], [changed[r.input[1]] for r in after if not _is_depthwise(r)])
        changed[before.input[1]] = changed[before.input[1]] / factor[:, None, None, None]
        changed[before.input[2]] = changed[before.input[2]] / factor
        for reader in after:
            by = factor[:, None, None, None] if _is_depthwise(reader) else factor[:, None, None]
            changed[reader.input[1]] = changed[reader.input[1]] * by
        for name in (before.output[0], node.output[0]):
            scaled[name] = observations[name].divided(factor)
    for tensor in graph.initializer:
        array = weights[tensor.name]
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name].astype(np.float32), tensor.name))
    return equalised, scaled


def _factor(before_activation: Observation, dense: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """What to divide each channel by: its range, tempered by the weights of dense convolutions that read it.

    The range counts values before the activation, because TFLite quantises those too.
    """
    reach = np.maximum(before_activation.high, -before_activation.low).mean(axis=0, dtype=np.float64)
    reach = np.maximum(reach, max(float(reach.max()) * SMALLEST_SHARE, SMALLEST))
    if dense:
        weight = np.max(np.stack([np.abs(array).max(axis=(0, 2, 3)) for array in dense]), axis=0)
        weight = np.maximum(weight, max(float(weight.max()) * SMALLEST_SHARE, SMALLEST))
        reach = reach**ACTIVATIONS_PART / weight ** (1.0 - ACTIVATIONS_PART)
    return np.asarray(reach / np.exp(np.log(reach).mean()))


def _is_depthwise(node: onnx.NodeProto) -> bool:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return int(attributes.get("group", 1)) > 1
