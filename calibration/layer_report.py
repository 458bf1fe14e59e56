"""What quantising costs, layer by layer: as a table, and as each layer's effect on the outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import numpy_helper

from retinaface_edge.runtime.spec import Spec

from .calibrate import Calibration
from .dataset.image_set import Frame
from .graph.onnx_graph import ACTIVATIONS, name_of, only_reader, read_graph, result_of
from .graph.session import session
from .kernel_parity import STEPS
from .observers import CANDIDATE_SCORE
from .progress import Progress
from .qdq import quantise

IMAGES = 8


@dataclass(frozen=True)
class LayerFit:
    """How well a layer fits 256 values: signal-to-noise in dB of its weights and of its result, and the share cut off.

    `kept` is `int8` or `float`; `low` and `high` are the range of its result, after its activation.
    """

    layer: str
    kept: str
    low: float
    high: float
    estimator: str
    clipped: float
    weight_noise: float
    result_noise: float


def layer_fits(calibration: Calibration, quantised: onnx.ModelProto) -> list[LayerFit]:
    """One row per convolution, in the graph's order."""
    floats = {tensor.name: numpy_helper.to_array(tensor) for tensor in calibration.model.graph.initializer}
    integers = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantised.graph.initializer}
    rows = []
    for node in read_graph(calibration.model).graph:
        if node.op_type != "Conv":
            continue
        kernel, result = name_of(node.inputs[1]), _result(node)
        found, sample = calibration.ranges[result], calibration.tensors[result].sample
        weight_noise = math.inf
        if f"{kernel}.integers" in integers:
            scale = integers[f"{kernel}.scale"][:, None, None, None]
            weight_noise = signal_to_noise(floats[kernel], floats[kernel] - integers[f"{kernel}.integers"] * scale)
        quant = found.quant
        rounded = (np.clip(np.rint(sample / quant.scale + quant.zero_point), 0, STEPS) - quant.zero_point) * quant.scale
        rows.append(
            LayerFit(
                node.name or "",
                "float" if calibration.recipe.is_float(node.name or "") else "int8",
                found.low,
                found.high,
                found.estimator,
                float(np.mean((sample < found.low - quant.scale) | (sample > found.high + quant.scale))),
                weight_noise,
                signal_to_noise(sample, sample - rounded),
            )
        )
    return rows


def sensitivities(calibration: Calibration, spec: Spec, progress: Progress = iter) -> dict[str, float]:
    """By convolution: the signal-to-noise ratio in dB of the worst output when that layer alone is quantised.

    Measured on a few calibration images, at the anchors that may become faces. The lower, the more sensitive.
    """
    images = calibration.images.inputs[:: max(len(calibration.images.inputs) // IMAGES, 1)][:IMAGES]
    layers = [node.name for node in calibration.model.graph.node if node.op_type == "Conv"]
    expected = _outputs(calibration.model, spec, images)
    found = {}
    for layer in progress(layers):
        others = tuple(name for name in layers if name != layer)
        alone = replace(calibration, recipe=replace(calibration.recipe, float_layers=others))
        found[layer] = _worst(spec, expected, _outputs(quantise(alone, spec), spec, images))
    return found


def signal_to_noise(signal: NDArray[np.float32], noise: NDArray[np.float32]) -> float:
    """10·log₁₀ of the ratio of mean squares; infinite without noise."""
    power = float(np.mean(np.square(noise, dtype=np.float64)))
    return (
        10.0 * math.log10(max(float(np.mean(np.square(signal, dtype=np.float64))), 1e-30) / power)
        if power
        else math.inf
    )


def format_fits(rows: Sequence[LayerFit], effects: dict[str, float] | None = None) -> str:
    """The rows as a Markdown table; with `effects` (from `sensitivities`) as a further column."""
    head = ["layer", "kept", "low", "high", "estimator", "clipped", "weights dB", "result dB"]
    lines = [head + (["outputs, alone, dB"] if effects else [])]
    for row in rows:
        numbers = [f"{row.low:.3g}", f"{row.high:.3g}", row.estimator, f"{100 * row.clipped:.2f} %"]
        cells = [row.layer, row.kept, *numbers, f"{row.weight_noise:.1f}", f"{row.result_noise:.1f}"]
        lines.append(cells + ([f"{effects[row.layer]:.1f}"] if effects else []))
    rule = ["---"] * len(lines[0])
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]]) + "\n"


def _result(convolution: ir.Node) -> str:
    """The value that is a layer's result: that of its activation, where one follows."""
    reader = only_reader(convolution.outputs[0])
    return result_of(reader if reader is not None and reader.op_type in ACTIVATIONS else convolution)


def _outputs(model: onnx.ModelProto, spec: Spec, images: Sequence[Frame]) -> list[list[NDArray[np.float32]]]:
    network, names = session(model), [output.name for output in spec.outputs]
    return [network.run(names, {spec.input_name: image}) for image in images]


def _worst(
    spec: Spec, expected: Sequence[Sequence[NDArray[np.float32]]], got: Sequence[Sequence[NDArray[np.float32]]]
) -> float:
    logit = math.log(CANDIDATE_SCORE / (1.0 - CANDIDATE_SCORE))
    levels = len(spec.strides)
    ratios = []
    for index, output in enumerate(spec.outputs):
        channels = next(head.channels for head in spec.heads if head.name == output.head)
        signal, noise = [], []
        for reference, result in zip(expected, got, strict=True):
            near = reference[index % levels].reshape(-1) >= logit
            wanted = reference[index].reshape(-1, channels)[near]
            signal.append(wanted.ravel())
            noise.append((result[index].reshape(-1, channels)[near] - wanted).ravel())
        if sum(map(len, signal)):
            ratios.append(signal_to_noise(np.concatenate(signal), np.concatenate(noise)))
    return min(ratios, default=math.inf)
