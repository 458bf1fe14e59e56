"""Trained ONNX detectors other than RetinaFace: what their graph shows, and the contract that it fulfils."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from retinaface_edge.runtime.spec import Mesh, Spec

from ...graph.detector_graph import DetectorGraph, Head

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class LevelHeads:
    """The heads of one stride by their channels: `scores` with one channel per anchor, in the order of the file."""

    stride: int
    anchors: int
    scores: tuple[Head, ...]
    box: Head
    landmark: Head | None


@dataclass(frozen=True)
class OnnxDetector:
    """A detector read from an ONNX file, ready to be given an input size (a `TrainedDetector`).

    `settings` are the fields of its `Spec` beside width and height; `outputs` maps (head, stride) to the graph's heads.
    """

    family: str
    title: str
    terms: str | None
    detector: DetectorGraph
    settings: Mapping[str, Any]
    outputs: Mapping[tuple[str, int], Head]
    digest: str = ""
    wrappings: tuple[str, ...] = ()

    @property
    def feature_channels(self) -> int:
        """Of the features that a dense branch reads. Raises `GraphError` where levels differ in them."""
        from ...graph.shared_features import feature_channels

        return feature_channels(self.detector)

    def spec(self, width: int, height: int, mesh: Mesh | None = None) -> Spec:
        """The contract for an input of that size. Raises `SpecError` for a size that no detector takes."""
        return Spec(width, height, mesh=mesh, **self.settings)

    def graph(self, spec: Spec, opset: int) -> onnx.ModelProto:
        """The FP32 graph in the form of the contract. Raises `GraphError` when it cannot be brought into it."""
        from ...graph.contract_form import contract_form

        heads = {output.name: self.outputs[output.head, output.stride] for output in spec.outputs}
        return contract_form(self.detector, heads, spec, opset)


def level_heads(detector: DetectorGraph) -> tuple[LevelHeads, ...] | None:
    """The heads of each stride; None unless every stride has one box head and the same number of the others."""
    levels = []
    for stride in detector.strides:
        heads = detector.at(stride)
        by_channels = sorted({head.channels for head in heads})
        anchors = by_channels[0]
        boxes = [head for head in heads if head.channels == 4 * anchors]
        points = [head for head in heads if head.channels == 10 * anchors]
        scores = tuple(head for head in heads if head.channels == anchors)
        if len(boxes) != 1 or len(points) > 1 or len(scores) + len(boxes) + len(points) != len(heads):
            return None
        levels.append(LevelHeads(stride, anchors, scores, boxes[0], points[0] if points else None))
    shapes = {(level.anchors, len(level.scores), level.landmark is None) for level in levels}
    return tuple(levels) if levels and len(shapes) == 1 else None


def outputs_of(levels: tuple[LevelHeads, ...], scores: tuple[str, ...]) -> dict[tuple[str, int], Head]:
    """Heads by their name in the contract and their stride; `scores` names those of one channel per anchor.

    A sigmoid after a score is part of its decoding, so the head is the raw value before it.
    """
    outputs: dict[tuple[str, int], Head] = {}
    for level in levels:
        for name, head in zip(scores, level.scores, strict=True):
            outputs[name, level.stride] = replace(head, sigmoid=False)
        outputs["box", level.stride] = level.box
        if level.landmark is not None:
            outputs["landmark", level.stride] = level.landmark
    return outputs
