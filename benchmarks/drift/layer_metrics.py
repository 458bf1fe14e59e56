"""The layer floor: where the difference to FP32 is born, and how it travels.

Two figures a layer, both as SQNR:
- `born`: the artifact's value against what the FP32 layer makes of the values that the artifact itself gave it. Only
  this layer's own rounding, weights and faults are in it.
- `arrived`: the artifact's value against FP32's own: all that was born on the way here.

Calibration may equalise channels: it divides a channel by a factor in one layer and multiplies by it in the next, which
changes values inside and nothing outside. So every channel of an artifact is first brought to FP32's scale. Its factor
is read from the weights on both sides, layer by layer, and not from the values, which a fault would distort.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.errors import ImageError
from retinaface_edge.runtime.io.images import read_image
from retinaface_edge.runtime.ops.letterbox import letterbox, letterbox_for
from retinaface_edge.runtime.spec import Spec

from ..inference.network_under_test import MeasurementError, Subject
from .layer_values import Isolated, Layer, Probe, can_probe, probe, read_layers
from .tensor_metrics import sqnr_db

SMALLEST = 1e-30
IMAGES = 8
"""Layers differ far more from each other than one layer does from picture to picture."""


@dataclass(frozen=True)
class LayerDrift:
    """One layer's figures in dB."""

    layer: Layer
    born_sqnr_db: float
    sqnr_db: float


def layer_drift(reference: Subject, artifacts: Sequence[Subject], files: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Compare the layers of `artifacts` with those of `reference`, FP32 ONNX, on at most `IMAGES` of the pictures.

    Artifacts whose layers cannot be seen (OpenVINO's) are left out. Gives plain JSON values, one entry an artifact.
    """
    layers = read_layers(reference)
    images = _inputs(reference.spec, files)
    original = probe(reference, layers)
    isolated = Isolated(reference, layers)
    results = []
    for artifact in artifacts:
        if not can_probe(artifact) or artifact.digest == reference.digest:
            continue
        drifts = _drifts(layers, original, probe(artifact, layers), isolated, images)
        worst = min(drifts, key=lambda drift: drift.born_sqnr_db)
        results.append(
            {
                "reference": reference.name,
                "artifact": artifact.name,
                "images": len(images),
                "born_in": worst.layer.name,
                "layers": [
                    {
                        "layer": drift.layer.name,
                        "type": drift.layer.kind,
                        "reads": list(drift.layer.reads),
                        "born_sqnr_db": drift.born_sqnr_db,
                        "sqnr_db": drift.sqnr_db,
                    }
                    for drift in drifts
                ],
            }
        )
    return results


def _drifts(
    layers: Sequence[Layer], original: Probe, artifact: Probe, isolated: Isolated, images: Sequence[NDArray[np.uint8]]
) -> list[LayerDrift]:
    gains = _gains(layers, original, artifact)
    signal = np.zeros(len(layers))
    arrived, born = np.zeros(len(layers)), np.zeros(len(layers))
    for image in images:
        wanted = original.run(image)
        values = {name: array / gains[name] for name, array in artifact.run(image).items()}
        should = isolated.run(image, values)
        for index, layer in enumerate(layers):
            if layer.is_output:
                # INT8 scores end below where faces may be, on purpose: that is no difference.
                lowest = values[layer.value].min()
                for side in (wanted, should):
                    np.maximum(side[layer.value], lowest, out=side[layer.value])
            signal[index] += _power(wanted[layer.value])
            arrived[index] += _power(values[layer.value] - wanted[layer.value])
            born[index] += _power(values[layer.value] - should[layer.value])
    return [
        LayerDrift(layer, sqnr_db(float(s), float(b)), sqnr_db(float(s), float(a)))
        for layer, s, b, a in zip(layers, signal, born, arrived, strict=True)
    ]


def _gains(layers: Sequence[Layer], original: Probe, artifact: Probe) -> dict[str, NDArray[np.float32]]:
    """For each value, the artifact's factor of each channel (channels,).

    A convolution's weights are w' = g_out·w / g_in, so g_out is ‖w'·g_in‖ / ‖w‖ over each filter: a ratio of
    norms, which stays right when a fault has put the filter's inputs into another order.
    """
    gains: dict[str, NDArray[np.float64]] = {}
    for layer in layers:
        before = [gains[name] for name in layer.reads]
        if layer.is_convolution:
            w, changed = original.weights(layer), artifact.weights(layer)
            if before:  # (out, in, …), or (channels, 1, …) where each channel has its own filter
                factor = before[0][None, :] if w.shape[1] == len(before[0]) else before[0][:, None]
                changed = changed * factor[..., None, None]
            gain = np.sqrt(_energy(changed) / np.maximum(_energy(w), SMALLEST))
            gain[gain <= 0.0] = 1.0
        else:
            gain = np.concatenate(before) if layer.kind == "concat" else before[0]
        gains[layer.value] = np.ones(len(gain)) if layer.is_output else gain
    return {name: gain.astype(np.float32) for name, gain in gains.items()}


def _inputs(spec: Spec, files: Mapping[str, Path]) -> list[NDArray[np.uint8]]:
    """Network inputs of pictures spread evenly over the set; those that cannot be read are passed over."""
    paths = list(files.values())
    count = min(IMAGES, len(paths))
    images = []
    for path in (paths[index * len(paths) // count] for index in range(count)):
        try:
            frame = read_image(path)
        except ImageError:
            continue  # the other floors name it
        image = np.empty(spec.input_shape, np.uint8)
        letterbox(spec, letterbox_for(spec, frame.shape[1], frame.shape[0]), frame, image)
        images.append(image)
    if not images:
        raise MeasurementError("none of the pictures for --layers can be read; give JPEG or PNG files")
    return images


def _energy(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sum(weights * weights, axis=(1, 2, 3)))


def _power(array: NDArray[np.float32]) -> float:
    return float(np.sum(np.square(array, dtype=np.float64)))
