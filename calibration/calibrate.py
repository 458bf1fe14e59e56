"""Calibration: an FP32 model and images in, the equalised model and the range of every tensor out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper

from ..runtime.postprocess import Grid
from ..runtime.spec import Spec
from .equalise import equalise
from .images import ImageSet
from .observe import Progress, observe
from .ranges import Range, at_candidates, before_activation, mean_extremes

WATCHED = ("Conv", "LeakyRelu", "Relu", "Add", "Concat")


@dataclass(frozen=True)
class Calibration:
    """`model` is the FP32 model, equalised; `ranges` has every value of it that some backend holds as integers."""

    model: onnx.ModelProto
    ranges: Mapping[str, Range]
    images: ImageSet

    @property
    def grids(self) -> dict[str, Grid]:
        """The uint8 grid of every value in `ranges`."""
        return {name: found.grid for name, found in self.ranges.items()}

    def to_json(self) -> dict[str, Any]:
        """The ranges as data, for `calibration.json` in the bundle."""
        return {
            "images": {
                "count": len(self.images.inputs),
                "digest": self.images.digest,
                "skipped": list(self.images.skipped),
            },
            "tensors": {
                name: {
                    "estimator": found.estimator,
                    "low": found.low,
                    "high": found.high,
                    "scale": found.grid.scale,
                    "zero_point": found.grid.zero_point,
                }
                for name, found in sorted(self.ranges.items())
            },
        }


def calibrate(model: onnx.ModelProto, spec: Spec, images: ImageSet, progress: Progress = iter) -> Calibration:
    """Equalise `model`, as `export` wrote it, and find the range of every value, by what it showed on `images`."""
    watched = [node.output[0] for node in model.graph.node if node.op_type in WATCHED]
    observations = observe(model, spec, watched, images, progress)
    equalised, tensors = equalise(model, observations.tensors)
    heads = {output.name: output.head for output in spec.outputs}
    ranges = {name: mean_extremes(observation) for name, observation in tensors.items()}
    for node in model.graph.node:
        source, result = node.input[0], node.output[0]
        if node.op_type == "Concat":  # its parts are joined as they are, so they are on one grid
            ranges.update(dict.fromkeys(node.input, ranges[result]))
        elif result in heads:
            if result in observations.outputs:
                ranges[source] = at_candidates(heads[result], observations.outputs[result])
            ranges[result] = ranges[source]
    for node in model.graph.node:
        if node.op_type == "LeakyRelu":
            slope = helper.get_attribute_value(node.attribute[0])
            found = before_activation(tensors[node.input[0]], ranges[node.output[0]].grid, slope)
            ranges[node.input[0]] = found
    return Calibration(equalised, ranges, images)
