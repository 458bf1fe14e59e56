"""The features that all heads of a level read: what the dense branch describes a face by.

Nothing in a foreign file names them. They are the last value that every head of the level depends on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from .detector_graph import DetectorGraph, FixedGraph, GraphError, Head, fixed, foreign_graph

SIDE = 256
"""Of the square input at which the channels are read; every level has several cells there."""


@dataclass(frozen=True)
class Features:
    """What the heads of one stride read: the value, NCHW, and the number of its channels."""

    value: str
    channels: int


def feature_channels(detector: DetectorGraph) -> int:
    """Channels of the features, the same at every stride. Raises `GraphError` where strides differ in them."""
    with foreign_graph():
        features = shared_features(fixed(detector, (SIDE, SIDE)), detector.heads)
    counts = {stride: found.channels for stride, found in features.items()}
    if len(set(counts.values())) != 1:
        said = ", ".join(f"{count} at stride {stride}" for stride, count in counts.items())
        raise GraphError(f"its levels have different numbers of feature channels ({said}), so no dense branch")
    return next(iter(counts.values()))


def shared_features(graph: FixedGraph, heads: Iterable[Head]) -> Mapping[int, Features]:
    """The features by stride. Raises `GraphError` for a stride whose heads share none of the level's own size."""
    nodes = list(graph.model.graph)
    place = {node: number for number, node in enumerate(nodes)}
    made = {str(value.name): node for node in nodes for value in node.outputs}
    by_stride: dict[int, set[ir.Node]] = {}
    sizes: dict[int, tuple[int, ...]] = {}
    for head in heads:
        before = _before(made[head.value])
        by_stride[head.stride] = by_stride.get(head.stride, before) & before
        sizes[head.stride] = graph.shapes[head.value][2:]
    found = {}
    for stride, shared in sorted(by_stride.items()):
        last = max(shared, key=place.__getitem__, default=None)
        shape = () if last is None else graph.shapes[str(last.outputs[0].name)]
        if last is None or len(shape) != 4 or shape[2:] != sizes[stride]:
            raise GraphError(f"its heads at stride {stride} read no common features, so no dense branch")
        found[stride] = Features(str(last.outputs[0].name), shape[1])
    return found


def _before(node: ir.Node) -> set[ir.Node]:
    """All nodes that `node` depends on."""
    seen: set[ir.Node] = set()
    waiting = [node]
    while waiting:
        for value in waiting.pop().inputs:
            producer = None if value is None else value.producer()
            if producer is not None and producer not in seen:
                seen.add(producer)
                waiting.append(producer)
    return seen
