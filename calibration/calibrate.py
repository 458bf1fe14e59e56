"""Calibration: an FP32 model, images and a recipe in; the equalised model and the range of every tensor out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from retinaface_edge.runtime.ops.postprocess import Grid
from retinaface_edge.runtime.spec import Contract

from .dataset.image_set import ImageSet
from .equalisation import equalise
from .gptq import IMAGES, patch_products
from .observers import Observation, Observations, Progress, observe
from .range_estimators import ESTIMATORS, Range, at_candidates, before_activation, mean_extremes
from .recipe import Recipe

MOVES = ("Resize", "Transpose", "Reshape")
"""Operations that compute nothing: their result is on the grid of what they read."""
WATCHED = ("Conv", "LeakyRelu", "Relu", "Add", "Concat")


@dataclass(frozen=True)
class Calibration:
    """What quantisation needs, and what it was made from.

    `model` is the FP32 model, equalised if the recipe says so; `ranges` has every value of it that some backend holds
    as integers; `tensors` are those values on the images; `products` are the convolutions' input statistics for
    rounding, empty where the recipe rounds to the nearest; `faces` counts the images on which FP32 finds one.
    """

    model: onnx.ModelProto
    recipe: Recipe
    images: ImageSet
    ranges: Mapping[str, Range]
    tensors: Mapping[str, Observation]
    products: Mapping[str, NDArray[np.float64]]
    faces: int

    @property
    def grids(self) -> dict[str, Grid]:
        """The uint8 grid of every value in `ranges`."""
        return {name: found.grid for name, found in self.ranges.items()}

    def to_json(self) -> dict[str, Any]:
        """The ranges as data, for `calibration.json` in the bundle."""
        return {
            "images": {
                "count": len(self.images.inputs),
                "with_faces": self.faces,
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


def grids_from_json(content: Mapping[str, Any]) -> dict[str, Grid]:
    """The grids in what `Calibration.to_json` gave."""
    return {name: Grid(found["scale"], found["zero_point"]) for name, found in content["tensors"].items()}


def calibrate(
    model: onnx.ModelProto, spec: Contract, images: ImageSet, recipe: Recipe, progress: Progress = iter
) -> Calibration:
    """Find all that quantising `model`, as `export` wrote it, by `recipe` needs, on `images`."""
    watched = [node.output[0] for node in model.graph.node if node.op_type in WATCHED]
    watched += _real_inputs(model)
    seen = observe(model, spec, watched, images, progress)
    tensors = dict(seen.tensors)
    if recipe.equalise:
        model, tensors = equalise(model, tensors)
    products: dict[str, NDArray[np.float64]] = {}
    if recipe.rounding == "hessian":
        # A batch of descriptions has few columns: all are needed, and cost little.
        step, count = (1, len(images.inputs)) if _real_inputs(model) else (len(images.inputs) // IMAGES, IMAGES)
        products = patch_products(model, images.inputs[:: max(step, 1)][:count])
    ranges = _ranges(model, spec, recipe, tensors, seen)
    return Calibration(model, recipe, images, ranges, tensors, products, seen.faces)


def _ranges(
    model: onnx.ModelProto, spec: Contract, recipe: Recipe, tensors: Mapping[str, Observation], seen: Observations
) -> dict[str, Range]:
    heads = {output.name: output.head for output in spec.outputs}
    ranges = {
        node.output[0]: ESTIMATORS[recipe.estimator(node.output[0])](tensors[node.output[0]])
        for node in model.graph.node
        if node.op_type in WATCHED and node.op_type != "Conv"
    }
    ranges.update({n: ESTIMATORS[recipe.estimator(n)](tensors[n]) for n in _real_inputs(model)})
    ranges = {name: found.symmetric() if recipe.is_symmetric(name) else found for name, found in ranges.items()}
    producers = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        source = _before_moves(node.input[0], producers)
        if node.op_type == "Conv" and source in producers and producers[source].op_type == "Conv":
            ranges[source] = ESTIMATORS[recipe.estimator(source)](tensors[source])
    for node in model.graph.node:
        source, result = node.input[0], node.output[0]
        if node.op_type == "Concat":  # its parts are joined as they are, so they are on one grid
            ranges.update(dict.fromkeys((_before_moves(part, producers) for part in node.input), ranges[result]))
        elif result in heads:
            extremes = seen.outputs.get(result) or _of_head(heads[result], seen)
            ranges[source] = ranges[result] = (
                at_candidates(heads[result], extremes) if extremes else mean_extremes(tensors[source])
            )
    for node in model.graph.node:
        if node.op_type == "LeakyRelu":
            ranges[node.input[0]] = (
                before_activation(
                    tensors[node.input[0]], ranges[node.output[0]].grid, helper.get_attribute_value(node.attribute[0])
                )
                if recipe.before_activation == "activation-error"
                else ESTIMATORS[recipe.before_activation](tensors[node.input[0]])
            )
    return ranges


def _before_moves(value: str, producers: Mapping[str, onnx.NodeProto]) -> str:
    """The value of which `value` is another arrangement."""
    while value in producers and producers[value].op_type in MOVES:
        value = producers[value].input[0]
    return value


def _real_inputs(model: onnx.ModelProto) -> list[str]:
    """What convolutions read of an input that is not an image: floats, which need a grid of their own."""
    if model.graph.input[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        return []
    return [node.output[0] for node in model.graph.node if node.input[0] == model.graph.input[0].name]


def _of_head(head: str, seen: Observations) -> tuple[float, float] | None:
    """A stride without candidates borrows from the others: values are relative to the anchor's size, so alike."""
    known = [extremes for name, extremes in seen.outputs.items() if name.startswith(f"{head}_")]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None
