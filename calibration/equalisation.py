"""Cross-layer equalisation: gives a tensor's channels similar ranges without changing what the model computes.

LeakyReLU is positively homogeneous: dividing a channel by s before it and multiplying the next convolution's weights
for that channel by s changes nothing (Nagel et al., arXiv 1906.04721, section 4.1). A tensor has one scale for all
channels, so channels with similar ranges waste fewer of its 256 steps. Weights have a scale for each output channel,
which absorbs s in the convolution before, and in a depthwise convolution after. In a dense one after, s divides the
difference between activations and weights; GPTQ rounds weights together (`gptq.py`), so they can take the larger part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import numpy_helper

from .graph.onnx_graph import is_depthwise, is_grouped, name_of, only_reader, read_graph, result_of
from .observers import Observation

HOMOGENEOUS = ("LeakyRelu", "Relu")
SMALLEST = 1e-30
ACTIVATIONS_PART = 0.75
"""How much of the difference dense convolutions' weights take over: 0 none, 1 all. 0.75 had the least drift."""
SMALLEST_SHARE = 1e-3
"""A channel is treated as having at least this share of the largest channel's range."""


def equalise(
    model: onnx.ModelProto, observations: Mapping[str, Observation]
) -> tuple[onnx.ModelProto, Mapping[str, Observation]]:
    """The equalised model, and the observations as it would have given them.

    A convolution is equalised when a LeakyReLU or ReLU follows it that only convolutions read. Values that an addition
    or a pooling reads are left alone, because they share their channels with other tensors, and so are those before a
    ReLU6, which is not homogeneous.
    """
    graph = read_graph(model).graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    changed = {name: array.astype(np.float64) for name, array in weights.items()}
    factors: dict[str, NDArray[np.float64]] = {}
    for node in graph:
        before = _equalisable(node)
        if before is None:
            continue
        kernel, bias = name_of(before.inputs[1]), name_of(before.inputs[2])
        after = node.outputs[0].consumers()
        dense = [changed[name_of(reader.inputs[1])] for reader in after if not is_depthwise(reader)]
        factor = _factor(observations[result_of(before)], dense)
        changed[kernel] = changed[kernel] / factor[:, None, None, None]
        changed[bias] = changed[bias] / factor
        for reader in after:
            by = factor[:, None, None, None] if is_depthwise(reader) else factor[:, None, None]
            name = name_of(reader.inputs[1])
            changed[name] = changed[name] * by
        factors.update(dict.fromkeys((result_of(before), result_of(node)), factor))
    equalised = onnx.ModelProto()
    equalised.CopyFrom(model)
    for tensor in equalised.graph.initializer:
        if weights[tensor.name].dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name].astype(np.float32), tensor.name))
    return equalised, _Divided(observations, factors)


class _Divided(Mapping[str, Observation]):
    """Observations with channels divided by `factors`, each when it is asked for: a large network's are gigabytes."""

    def __init__(self, observations: Mapping[str, Observation], factors: Mapping[str, NDArray[np.float64]]) -> None:
        self._observations, self._factors = observations, factors

    def __getitem__(self, name: str) -> Observation:
        found, factor = self._observations[name], self._factors.get(name)
        return found if factor is None else found.divided(factor)

    def __iter__(self) -> Iterator[str]:
        return iter(self._observations)

    def __len__(self) -> int:
        return len(self._observations)


def _equalisable(activation: ir.Node) -> ir.Node | None:
    """The convolution before an activation that can be equalised with the convolutions after it; None if it cannot."""
    if activation.op_type not in HOMOGENEOUS or activation.outputs[0].is_graph_output():
        return None
    before = activation.inputs[0].producer() if activation.inputs[0] is not None else None
    if before is None or before.op_type != "Conv" or only_reader(before.outputs[0]) is not activation:
        return None
    own = name_of(before.inputs[1])
    for reader in activation.outputs[0].consumers():
        if reader.op_type != "Conv" or is_grouped(reader):
            return None
        kernel = reader.inputs[1]
        if kernel is None or len(kernel.uses()) > 1 or kernel.name == own:  # weights that other layers share
            return None
    return before if before.inputs[1] is not None and len(before.inputs[1].uses()) == 1 else None


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
