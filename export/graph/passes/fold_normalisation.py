"""Scale and colour order of the pixels folded into the first convolution, so that only a mean is subtracted from them.

A network that reads (pixel − mean)/std of RGB computes Σ w·(pixel − mean)/std: weights divided by std and put into the
order of the image's channels give the same, with zeros around the centred pixels as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from retinaface_edge.calibration.graph.image_front import TO_NCHW, image_front
from retinaface_edge.calibration.graph.onnx_graph import (
    add_constant,
    attribute,
    constant,
    constant_of,
    input_of,
    insert_before,
    name_of,
    new_node,
    only_reader,
)

from .graph_pass import graph_pass, weights_are_constants

LONGEST = 10


@dataclass
class _Affine:
    """By channel of a value: scale · pixel[order] + shift. `axis` is where its channels are."""

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    order: NDArray[np.int64]
    axis: int = 3

    def apply(self, node: ir.Node) -> bool:
        """Follow one node; False if it does anything else to the pixels."""
        if node.op_type in ("Cast", "Identity"):
            return True
        if node.op_type == "Transpose" and self.axis == 3:
            self.axis = 1
            return bool(attribute(node, "perm", []) == TO_NCHW)
        if node.op_type in ("Gather", "Slice"):
            taken = _gathered if node.op_type == "Gather" else _sliced
            return self._rearrange(taken(node, len(self.order)))
        factor = constant(input_of(node, 1))
        return factor is not None and self._arithmetic(node.op_type, factor)

    def _rearrange(self, found: tuple[int, Sequence[int]] | None) -> bool:
        """Take the channels in another order; False unless it is one of all channels."""
        if found is None or found[0] != self.axis or sorted(found[1]) != list(range(len(self.order))):
            return False
        chosen = np.array(found[1], np.int64)
        self.scale, self.shift, self.order = self.scale[chosen], self.shift[chosen], self.order[chosen]
        return True

    def _arithmetic(self, operator: str, factor: NDArray[np.generic]) -> bool:
        shape = [1] * (4 - factor.ndim) + list(factor.shape)
        if any(size != 1 for axis, size in enumerate(shape) if axis != self.axis):
            return False
        numbers = np.broadcast_to(factor.astype(np.float64).ravel(), self.scale.shape)
        if operator in ("Mul", "Div"):
            numbers = 1.0 / numbers if operator == "Div" else numbers
            self.scale, self.shift = self.scale * numbers, self.shift * numbers
        elif operator in ("Add", "Sub"):
            self.shift = self.shift + (numbers if operator == "Add" else -numbers)
        else:
            return False
        return True


def _gathered(node: ir.Node, channels: int) -> tuple[int, Sequence[int]] | None:
    """The axis of a Gather and the indices that it takes."""
    indices = constant(input_of(node, 1))
    return None if indices is None else (attribute(node, "axis", 0) % 4, [int(i) % channels for i in indices.ravel()])


def _sliced(node: ir.Node, channels: int) -> tuple[int, Sequence[int]] | None:
    """The axis of a Slice and the indices that it takes there."""
    starts, ends, axes, steps = (constant(input_of(node, position)) for position in (1, 2, 3, 4))
    if starts is None or ends is None or axes is None or steps is None or axes.size != 1:
        return None
    end = int(ends.item())
    taken = slice(int(starts.item()), None if end < -channels else end, int(steps.item()))
    return int(axes.item()) % 4, range(channels)[taken]


@graph_pass(requires=[weights_are_constants])
def fold_normalisation(model: ir.Model) -> ir.Model:
    """The graph with Cast, Sub and Transpose alone between image and first convolution, if it computes (x − m)/s.

    A graph that does something else to its pixels, or has no image, stays as it is.
    """
    if image_front(model.graph) is not None:
        return model
    changed = model.clone()
    graph = changed.graph
    found = _pixels(graph)
    if found is None:
        return model
    front, convolution, affine = found
    mean = np.empty_like(affine.shift)
    mean[affine.order] = -affine.shift / affine.scale
    weights = np.empty_like(constant_of(convolution, 1).astype(np.float64))
    weights[:, affine.order] = constant_of(convolution, 1) * affine.scale[:, None, None]
    name = name_of(convolution.inputs[1])
    subtrahend = add_constant(graph, "image.mean", mean.astype(np.float32))
    cast = new_node("Cast", [graph.inputs[0]], "image.float", "image.float", {"to": int(ir.DataType.FLOAT)})
    subtract = new_node("Sub", [cast.outputs[0], subtrahend], "image.centred", "image.centred")
    transpose = new_node("Transpose", [subtract.outputs[0]], "image.nchw", "image.nchw", {"perm": TO_NCHW})
    insert_before(front[0], [cast, subtract, transpose])
    convolution.replace_input_with(0, transpose.outputs[0])
    convolution.replace_input_with(1, None)
    del graph.initializers[name]
    convolution.replace_input_with(1, add_constant(graph, name, weights.astype(np.float32)))
    for node in reversed(front):
        graph.remove(node, safe=True)
    for unused in [key for key, value in graph.initializers.items() if not value.uses()]:
        del graph.initializers[unused]
    return changed


def _pixels(graph: ir.Graph) -> tuple[list[ir.Node], ir.Node, _Affine] | None:
    """What is done to the image up to the first convolution: its nodes, the convolution, and their joint effect."""
    image = graph.inputs[0] if graph.inputs else None
    if image is None or image.dtype != ir.DataType.UINT8 or image.shape is None or len(image.shape) != 4:
        return None
    channels = image.shape[3]
    if not isinstance(channels, int):
        return None
    affine = _Affine(np.ones(channels), np.zeros(channels), np.arange(channels))
    front: list[ir.Node] = []
    node = only_reader(image)
    while node is not None and node.op_type != "Conv" and len(front) < LONGEST:
        if not affine.apply(node):
            return None
        front.append(node)
        node = only_reader(node.outputs[0])
    if node is None or node.op_type != "Conv" or affine.axis != 1 or not np.all(affine.scale):
        return None
    weights = node.inputs[1]
    shared = weights is None or len(weights.uses()) > 1 or constant_of(node, 1).shape[1] != channels
    return None if shared else (front, node, affine)
