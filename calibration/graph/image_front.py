"""The input part of a graph: from uint8 pixels to what the first convolution reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .onnx_graph import attribute, constant, only_reader

TO_NCHW = [0, 3, 1, 2]


@dataclass(frozen=True)
class ImageFront:
    """`nodes` from the image to the Transpose to NCHW, the `convolution` behind them, and the mean that is subtracted.

    `mean` is float64 of shape (channels,); what the convolution reads is pixel − mean.
    """

    nodes: tuple[ir.Node, ...]
    convolution: ir.Node
    mean: NDArray[np.float64]

    @property
    def has_uint8_mean(self) -> bool:
        """Whether the mean consists of uint8 values, so that a pixel can have it."""
        return bool(np.array_equal(self.mean, self.mean.astype(np.uint8)))


def image_front(graph: ir.Graph) -> ImageFront | None:
    """The front of a graph whose first input is the image, NHWC; None if it does anything else to the image.

    Its forms are Cast, Sub, Transpose; Cast, Transpose; and, in a QDQ graph, DequantizeLinear, Transpose.
    """
    value = graph.inputs[0] if graph.inputs else None
    nodes: list[ir.Node] = []
    while value is not None and len(nodes) < 4:  # no front is longer
        node = only_reader(value)
        if node is None:
            return None
        nodes.append(node)
        value = node.outputs[0]
    kinds = [node.op_type for node in nodes]
    length = kinds.index("Conv") if "Conv" in kinds else 0
    front = nodes[:length]
    if not front or attribute(front[-1], "perm", []) != TO_NCHW:
        return None
    mean = _mean(front, kinds[:length], nodes[length])
    return None if mean is None else ImageFront(tuple(front), nodes[length], mean)


def _mean(front: list[ir.Node], kinds: list[str], convolution: ir.Node) -> NDArray[np.float64] | None:
    weights = convolution.inputs[1].shape if convolution.inputs[1] is not None else None
    image = front[0].inputs[0]
    shape = image.shape if image is not None else None
    channels = shape[-1] if shape is not None and len(shape) == 4 else weights[1] if weights is not None else None
    if not isinstance(channels, int):
        return None
    if kinds == ["Cast", "Transpose"]:
        return np.zeros(channels)
    if kinds == ["Cast", "Sub", "Transpose"]:
        mean = constant(front[1].inputs[1])
    elif kinds == ["DequantizeLinear", "Transpose"]:
        scale, mean = constant(front[0].inputs[1]), constant(front[0].inputs[2])
        if scale is None or np.any(scale != 1.0):
            return None
    else:
        return None
    if mean is None or mean.size not in (1, channels) or mean.ndim > 1:
        return None
    return np.broadcast_to(mean.astype(np.float64).ravel(), (channels,))
