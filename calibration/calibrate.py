"""Calibration: an FP32 model, images and a recipe in; the equalised model and the range of every tensor out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from retinaface_edge.runtime.ops.quantization import QuantParams
from retinaface_edge.runtime.spec import Contract

from .dataset.image_set import ImageSet
from .equalisation import equalise
from .gptq import IMAGES, patch_products
from .graph.onnx_graph import ACTIVATIONS, FUSED_ACTIVATIONS, attribute, name_of, only_reader, read_graph, result_of
from .kernel_parity import STEPS, agreeing_sum
from .observers import Observation, Observations, observe
from .progress import Progress
from .range_estimators import ESTIMATORS, Range, at_candidates, before_activation, mean_extremes
from .recipe import Recipe
from .record import CalibrationImages, CalibrationRecord, TensorRange
from .roles import RETINAFACE, Roles

MOVES = ("Resize", "Transpose", "Reshape", "MaxPool")
"""Operations that compute no new value: their result has the quantisation parameters of what they read."""
WATCHED = ("Conv", *ACTIVATIONS, "Add", "Concat")


@dataclass(frozen=True)
class Calibration:
    """Everything that quantisation needs, and what it was measured on.

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
    def quant_params(self) -> dict[str, QuantParams]:
        """The uint8 quantisation parameters of every value in `ranges`."""
        return {name: found.quant for name, found in self.ranges.items()}

    @property
    def record(self) -> CalibrationRecord:
        """The ranges as data, for `calibration.json` in the bundle."""
        images = CalibrationImages(len(self.images.inputs), self.faces, self.images.digest, self.images.skipped)
        tensors = {
            name: TensorRange(found.estimator, found.low, found.high, *found.quant)
            for name, found in sorted(self.ranges.items())
        }
        return CalibrationRecord(images, tensors)


def calibrate(
    model: onnx.ModelProto,
    spec: Contract,
    images: ImageSet,
    recipe: Recipe,
    progress: Progress = iter,
    roles: Roles = RETINAFACE,
) -> Calibration:
    """Run `model`, as `export` wrote it, on `images`, and find everything that quantising it by `recipe` needs.

    `roles` maps the recipe's roles to layers of the model; the recipe in the result names the layers.
    """
    recipe = recipe.resolved(roles)
    watched = [node.output[0] for node in model.graph.node if node.op_type in WATCHED]
    watched += _real_inputs(model)
    seen = observe(model, spec, watched, images, progress)
    tensors = seen.tensors
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
    graph = read_graph(model).graph

    def estimated(name: str) -> Range:
        return ESTIMATORS[recipe.estimator(name)](tensors[name])

    names = [result_of(node) for node in graph if node.op_type in WATCHED and node.op_type != "Conv"]
    names = [name for name in names if name not in _fused_sums(graph)] + _real_inputs(model)
    ranges = {name: estimated(name) for name in names}
    ranges = {name: found.symmetric() if recipe.is_symmetric(name) else found for name, found in ranges.items()}
    for node in graph:
        # What a convolution or an addition reads straight from a convolution, without an activation in between.
        for value in {"Conv": node.inputs[:1], "Add": node.inputs}.get(node.op_type, ()):
            source = before_moves(value)
            producer = source.producer() if source is not None else None
            if producer is not None and producer.op_type == "Conv":
                ranges[name_of(source)] = estimated(name_of(source))
    heads = {output.name: output.head for output in spec.outputs}
    for node in graph:
        source_name, result = name_of(node.inputs[0]), result_of(node)
        if node.op_type == "Concat":  # its parts are joined as they are, so they share one scale
            ranges.update(dict.fromkeys((name_of(before_moves(part)) for part in node.inputs), ranges[result]))
        elif result in heads:
            extremes = seen.outputs.get(result) or _of_head(heads[result], seen)
            ranges[source_name] = ranges[result] = (
                at_candidates(heads[result], extremes) if extremes else mean_extremes(tensors[source_name])
            )
    _agree_on_sums(graph, ranges)
    for node in graph:
        if node.op_type == "LeakyRelu":
            source_name, after = name_of(node.inputs[0]), ranges[result_of(node)]
            ranges[source_name] = (
                before_activation(tensors[source_name], after, attribute(node, "alpha", 0.01))
                if recipe.before_activation == "activation-error"
                else ESTIMATORS[recipe.before_activation](tensors[source_name])
            )
    return ranges


def _fused_sums(graph: ir.Graph) -> set[str]:
    """Sums read only by an activation that integer kernels fuse; no backend stores them as integers."""
    readers = {result_of(node): only_reader(node.outputs[0]) for node in graph if node.op_type == "Add"}
    return {name for name, reader in readers.items() if reader is not None and reader.op_type in FUSED_ACTIVATIONS}


def _agree_on_sums(graph: ir.Graph, ranges: dict[str, Range]) -> None:
    """Widen the range of each sum, by a few per mille at most, to one on which all kernels add alike.

    In the graph's order, since a sum may be a term of the next. A sum that shares its range with the other parts of a
    concatenation keeps it, as does one before a LeakyReLU, whose range follows from the one after.
    """
    fused = _fused_sums(graph)
    for node in graph:
        if node.op_type != "Add":
            continue
        reader = only_reader(node.outputs[0])
        result = reader if reader is not None and result_of(node) in fused else node
        readers = {user.op_type for user in result.outputs[0].consumers()}
        terms = [ranges.get(name_of(before_moves(value))) for value in node.inputs]
        if len(terms) != 2 or terms[0] is None or terms[1] is None or readers & {"Concat", "LeakyRelu"}:
            continue
        found = ranges[result_of(result)]
        quant = agreeing_sum(terms[0].quant, terms[1].quant, found.quant)
        if quant != found.quant:
            low, high = -quant.zero_point * quant.scale, (STEPS - quant.zero_point) * quant.scale
            ranges[result_of(result)] = replace(found, low=low, high=high)


def before_moves(value: ir.Value | None) -> ir.Value | None:
    """Follow `value` back through operations that only rearrange values or take the largest of neighbours."""
    while value is not None and (producer := value.producer()) is not None and producer.op_type in MOVES:
        value = producer.inputs[0]
    return value


def _real_inputs(model: onnx.ModelProto) -> list[str]:
    """What convolutions read from an input that is not an image: floats, which need a range of their own."""
    if model.graph.input[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        return []
    return [node.output[0] for node in model.graph.node if node.input[0] == model.graph.input[0].name]


def _of_head(head: str, seen: Observations) -> tuple[float, float] | None:
    """A stride without candidates takes the other strides' extremes: values are relative to the anchor size."""
    known = [extremes for name, extremes in seen.outputs.items() if name.startswith(f"{head}_")]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None
