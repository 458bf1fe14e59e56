"""The values that the tensors of an FP32 model take on the calibration images.

One run per image gives, for each watched tensor, the smallest and largest value of every channel and a spread sample of
values; and the raw outputs at the anchors that may become faces.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from retinaface_edge.runtime.spec import Contract

from .dataset.image_set import ImageSet
from .graph.session import inferred_shapes, session
from .progress import Progress

POSITIONS = 8
"""Rows and columns, at least, of the sample taken of each feature map; fewer where that is more than `MOST_VALUES`."""
MOST_VALUES = 2_000_000
"""Sampled values of one image, in all tensors together: a hundred images then take less than a gigabyte."""
CANDIDATE_SCORE = 0.02
"""Anchors below this score become no face at any threshold that detectors are used or evaluated with."""


@dataclass(frozen=True)
class Observation:
    """One tensor on n images: `low` and `high` (n, channels), `sample` (n, channels, positions), all float32."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    sample: NDArray[np.float32]

    def divided(self, factor: NDArray[np.float64]) -> Observation:
        """As if every channel's values had been divided by its positive `factor` (channels,)."""
        by = factor.astype(np.float32)
        return Observation(self.low / by, self.high / by, self.sample / by[:, None])


@dataclass(frozen=True)
class Observations:
    """`tensors` by name; by output name its extremes at candidate anchors, if there were any; and how many faces.

    `faces` is the number of images on which some anchor's score is at least 0.5.
    """

    tensors: Mapping[str, Observation]
    outputs: Mapping[str, tuple[float, float]]
    faces: int


def observe(
    model: onnx.ModelProto, spec: Contract, tensors: Sequence[str], images: ImageSet, progress: Progress = iter
) -> Observations:
    """Run `model` on every image, watching `tensors` (NCHW values of its graph)."""
    network, names = _watching_session(model, tensors)
    outputs = [output.name for output in spec.outputs]
    source = model.graph.input[0].name
    columns: list[NDArray[np.float32]] = []
    extremes: dict[str, tuple[float, float]] = {}
    faces = 0
    for index, image in enumerate(progress(images.inputs)):
        results = network.run(outputs + names, {source: image})
        seen = results[len(outputs) :]
        # Filled in place: samples of a large network are a gigabyte, which a list to be stacked would hold twice.
        columns = columns or [np.empty((len(images.inputs), *value.shape), np.float32) for value in seen]
        for column, value in zip(columns, seen, strict=True):
            column[index] = value
        _widen(extremes, spec, results[: len(outputs)])
        faces += max((float(score.max()) for score in results[: len(spec.strides)]), default=-1.0) >= 0.0
    count = len(tensors)
    watched = {
        name: Observation(columns[i], columns[count + i], columns[2 * count + i].reshape(*columns[i].shape, -1))
        for i, name in enumerate(tensors)
    }
    return Observations(watched, extremes, faces)


def _watching_session(model: onnx.ModelProto, tensors: Sequence[str]) -> tuple[onnxruntime.InferenceSession, list[str]]:
    """The model with minimum, maximum and sample of each tensor as further outputs: no whole feature map leaves it."""
    shapes = inferred_shapes(model)
    watching = onnx.ModelProto()
    watching.CopyFrom(model)
    graph = watching.graph
    graph.initializer.append(numpy_helper.from_array(np.array([2, 3], np.int64), "watch.axes"))
    names = []
    positions = _positions([shapes[tensor] for tensor in tensors])
    for kind in ("ReduceMin", "ReduceMax", "Slice"):
        for tensor in tensors:
            name = f"{tensor}.{kind}"
            if kind == "Slice":
                sizes = np.array(shapes[tensor][2:], np.int64)
                steps = np.maximum(sizes // positions, 1)
                parts = {"starts": steps // 2, "ends": sizes, "axes": np.array([2, 3], np.int64), "steps": steps}
                graph.initializer.extend(numpy_helper.from_array(v, f"{name}.{key}") for key, v in parts.items())
                node = helper.make_node(kind, [tensor, *(f"{name}.{key}" for key in parts)], [f"{name}.map"])
            else:
                node = helper.make_node(kind, [tensor, "watch.axes"], [f"{name}.map"], keepdims=0)
            graph.node.append(node)
            graph.node.append(helper.make_node("Squeeze", [f"{name}.map", "watch.first"], [name]))
            graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
            names.append(name)
    graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "watch.first"))
    return session(watching), names


def _positions(shapes: Sequence[Sequence[int]]) -> int:
    """Rows and columns to sample, for which all tensors of those shapes have at most `MOST_VALUES`; two at least."""

    def values(positions: int) -> int:
        steps = [[max(size // positions, 1) for size in shape[2:]] for shape in shapes]
        return sum(
            shape[1] * math.prod(-(-(size - step // 2) // step) for size, step in zip(shape[2:], pair, strict=True))
            for shape, pair in zip(shapes, steps, strict=True)
        )

    return next((count for count in range(POSITIONS, 2, -1) if values(count) <= MOST_VALUES), 2)


def _widen(extremes: dict[str, tuple[float, float]], spec: Contract, results: Sequence[NDArray[np.float32]]) -> None:
    logit = math.log(CANDIDATE_SCORE / (1.0 - CANDIDATE_SCORE))
    by_name = {output.name: result for output, result in zip(spec.outputs, results, strict=True)}
    for stride in spec.strides:
        score = by_name[f"score_{stride}"].reshape(-1)
        candidates = score >= logit
        if not candidates.any():
            continue
        for head in spec.heads:
            name = f"{head.name}_{stride}"
            values = by_name[name].reshape(len(score), head.channels)[candidates]
            low, high = extremes.get(name, (0.0, 0.0))
            extremes[name] = (min(low, float(values.min())), max(high, float(values.max())))
