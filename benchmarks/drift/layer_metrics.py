"""Drift of layers: where the difference to FP32 is introduced, and how it accumulates.

Two errors per layer, both as SQNR:
- introduced: the artifact's value against what the FP32 layer makes of the values that the artifact itself gave it.
  Only this layer's own rounding, weights and faults are in it.
- accumulated: the artifact's value against FP32's own, so all error introduced on the way here.

Calibration may equalise channels: it divides a channel by a factor in one layer and multiplies by it in the next, which
changes values inside and nothing outside. So every channel of an artifact is first brought to FP32's scale. Its factor
is read from the weights on both sides, layer by layer, and not from the values, which a fault would distort.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import MeasurementError
from ..inference.measurement import Execution, Measured, measure_pictures
from ..inference.network_under_test import NetworkUnderTest, digest_of
from ..inference.open_picture import OpenPicture, resident
from ..inference.result_cache import Arrays
from .layer_values import IsolatedLayers, LayerValues, layer_values, shows_layers
from .layers import Layer, read_layers
from .result import LayerComparison, LayerDrift
from .tensor_metrics import sqnr_db

SMALLEST = 1e-30
IMAGES = 8
"""Layers differ far more from each other than one layer does from picture to picture."""


@dataclass(frozen=True)
class LayerPowers:
    """Sums of squares over one picture, (layers,) each: FP32's values, and the errors introduced and accumulated."""

    signal: NDArray[np.float64]
    introduced: NDArray[np.float64]
    accumulated: NDArray[np.float64]


@dataclass(frozen=True)
class LayerErrors:
    """Quantity: the errors in the layers of an artifact, against a reference in FP32 ONNX."""

    reference: NetworkUnderTest
    artifact: NetworkUnderTest

    @property
    def key(self) -> str:
        """See `Quantity`."""
        return digest_of("layers", self.reference.digest, self.artifact.digest)

    def measure(self, picture: OpenPicture) -> Arrays:
        """Arrays named as the fields of `LayerPowers`."""
        models = resident(f"layers of {self.key}", lambda: _Models(self.reference, self.artifact))
        image, _ = picture.network_input(self.reference.spec)
        return models.powers(image)

    def value(self, arrays: Arrays) -> LayerPowers:
        """The sums."""
        return LayerPowers(**arrays)


def layer_drift(
    reference: NetworkUnderTest,
    artifacts: Sequence[NetworkUnderTest],
    files: Mapping[str, Path],
    execution: Execution,
) -> tuple[LayerComparison, ...]:
    """Compare the layers of `artifacts` with those of `reference`, FP32 ONNX, on at most `IMAGES` of the pictures.

    Artifacts whose layers cannot be seen (OpenVINO's) and pictures that cannot be read are left out. Raises
    `MeasurementError` when no picture can be read.
    """
    errors = [LayerErrors(reference, a) for a in artifacts if shows_layers(a) and a.digest != reference.digest]
    names = list(files)
    count = min(IMAGES, len(names))
    spread = {name: files[name] for name in (names[index * len(names) // count] for index in range(count))}
    measured = [one for one in measure_pictures(errors, spread, execution) if isinstance(one, Measured)]
    if not measured:
        raise MeasurementError("none of the pictures for --layers can be read; give picture files")
    layers = read_layers(reference)
    return tuple(_comparison(one, layers, [picture.value(one) for picture in measured]) for one in errors)


def _comparison(errors: LayerErrors, layers: Sequence[Layer], pictures: Sequence[LayerPowers]) -> LayerComparison:
    signal, introduced, accumulated = (
        np.sum([getattr(powers, name) for powers in pictures], axis=0)
        for name in ("signal", "introduced", "accumulated")
    )
    drifts = tuple(
        LayerDrift(layer.name, layer.kind, layer.reads, sqnr_db(float(s), float(i)), sqnr_db(float(s), float(a)))
        for layer, s, i, a in zip(layers, signal, introduced, accumulated, strict=True)
    )
    worst = min(drifts, key=lambda drift: drift.introduced_sqnr_db)
    return LayerComparison(errors.reference.name, errors.artifact.name, len(pictures), worst.layer, drifts)


class _Models:
    """An artifact, its reference, and every layer of the reference on its own."""

    def __init__(self, reference: NetworkUnderTest, artifact: NetworkUnderTest) -> None:
        self._layers = resident(f"layers {reference.digest}", lambda: read_layers(reference))
        self._reference = resident(f"values {reference.digest}", lambda: layer_values(reference, self._layers))
        self._isolated = resident(f"isolated {reference.digest}", lambda: IsolatedLayers(reference, self._layers))
        self._artifact = layer_values(artifact, self._layers)
        self._gains = channel_gains(self._layers, self._reference, self._artifact)

    def powers(self, image: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
        """Sums of squares for one picture, by the names of `LayerPowers`."""
        wanted = self._reference.run(image)
        values = {name: array / self._gains[name] for name, array in self._artifact.run(image).items()}
        should = self._isolated.run(image, values)
        rows = []
        for layer in self._layers:
            if layer.is_output:
                # INT8 scores end below where faces may be, on purpose: that is no difference.
                lowest = values[layer.value].min()
                for side in (wanted, should):
                    np.maximum(side[layer.value], lowest, out=side[layer.value])
            value, expected = values[layer.value], wanted[layer.value]
            rows.append((_power(expected), _power(value - should[layer.value]), _power(value - expected)))
        signal, introduced, accumulated = np.array(rows).T
        return {"signal": signal, "introduced": introduced, "accumulated": accumulated}


def channel_gains(
    layers: Sequence[Layer], reference: LayerValues, artifact: LayerValues
) -> dict[str, NDArray[np.float32]]:
    """For each value, the artifact's factor of each channel (channels,).

    A convolution's weights are w' = g_out·w / g_in, so g_out is ‖w'·g_in‖ / ‖w‖ over each filter: a ratio of
    norms, which stays right when a fault has put the filter's inputs into another order.
    """
    gains: dict[str, NDArray[np.float64]] = {}
    for layer in layers:
        before = [gains[name] for name in layer.reads]
        if layer.is_convolution:
            weights, changed = reference.weights(layer), artifact.weights(layer)
            if before:
                # Each group of filters (out, in per group, …) reads its own group of channels.
                per_group = before[0].reshape(layer.groups, 1, weights.shape[1])
                factor = np.repeat(per_group, len(weights) // layer.groups, axis=1).reshape(weights.shape[:2])
                changed = changed * factor[..., None, None]
            gain = np.sqrt(_energy(changed) / np.maximum(_energy(weights), SMALLEST))
            gain[gain <= 0.0] = 1.0
        else:
            gain = np.concatenate(before) if layer.kind == "concat" else before[0]
        gains[layer.value] = np.ones(len(gain)) if layer.is_output else gain
    return {name: gain.astype(np.float32) for name, gain in gains.items()}


def _energy(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sum(weights * weights, axis=(1, 2, 3)))


def _power(array: NDArray[np.float32]) -> float:
    return float(np.sum(np.square(array, dtype=np.float64)))
