"""Faults planted into an INT8 residual network: the layers that `drift --layers` names are those with the fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from oracles.residual import ResidualDetector
from PIL import Image

from retinaface_edge.benchmarks.drift.layer_metrics import layer_drift
from retinaface_edge.benchmarks.inference.measurement import Execution, read_set
from retinaface_edge.benchmarks.inference.network_under_test import NetworkUnderTest, digest_of
from retinaface_edge.benchmarks.inference.result_cache import ResultCache
from retinaface_edge.calibration.calibrate import calibrate
from retinaface_edge.calibration.dataset.image_set import image_set
from retinaface_edge.calibration.dataset.synthetic_scenes import portrait, scenes
from retinaface_edge.calibration.qdq import quantise
from retinaface_edge.calibration.recipe import read_recipe
from retinaface_edge.export.graph.export import to_onnx
from retinaface_edge.export.lower.tflite import lower_tflite
from retinaface_edge.export.lower.tflite_schema import Graph, Operator, serialise
from retinaface_edge.runtime import Spec
from retinaface_edge.runtime.artifact import ArtifactId, Backend, Precision

LEAST_SOUND_DB = 17.0
"""Of the default gate for INT8 artifacts."""
RELU_N1_TO_1 = 2
POOL, SUM, BOUNDED, NECK = (
    "stem.activation.maxpool",
    "stages.0.1.conv2.add.activation",
    "stages.1.1.conv1.activation",
    "lateral.0.activation.add",
)

Change = Callable[[Operator], Operator]


def option(**changed: int) -> Change:
    return lambda operator: replace(operator, options={**operator.options, **changed})


def one_term_twice(operator: Operator) -> Operator:
    return replace(operator, inputs=(operator.inputs[0], operator.inputs[0]))


FAULTS: dict[str, tuple[str, Change]] = {
    "the pool's windows are smaller": (POOL, option(filterHeight=2, filterWidth=2)),
    "the sum adds one term twice": (SUM, one_term_twice),
    "the bounded activation is another": (BOUNDED, option(fusedActivationFunction=RELU_N1_TO_1)),
    "the neck adds one level twice": (NECK, one_term_twice),
}


@dataclass(frozen=True)
class Residual:
    """A residual network in FP32 as ONNX, in INT8 as a TFLite graph, and pictures."""

    fp32: NetworkUnderTest
    int8: Graph
    pictures: dict[str, Path]
    cache: ResultCache

    def worst_layer(self, graph: Graph) -> tuple[str, float]:
        """The layer that introduces most, and its figure in dB."""
        content = serialise(graph)
        artifact = ArtifactId(Backend.TFLITE, Precision.INT8)
        network = NetworkUnderTest(str(artifact), self.fp32.spec, (content,), digest_of(content.hex()), artifact)
        (compared,) = layer_drift(self.fp32, [network], self.pictures, Execution(self.cache))
        worst = min(compared.layers, key=lambda layer: layer.introduced_sqnr_db)
        return worst.layer, worst.introduced_sqnr_db


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> Residual:
    spec = Spec(128, 96)
    frames = [portrait(), *scenes(3, seed=2)]
    folder = tmp_path_factory.mktemp("pictures")
    for index, frame in enumerate(frames):
        Image.fromarray(frame[:, :, ::-1]).save(folder / f"{index}.png")
    model = ResidualDetector(spec, mean=(104.0, 117.0, 123.0), std=(1.0, 1.0, 1.0), rgb=False)
    fp32 = to_onnx(model.eval(), spec)
    calibration = calibrate(fp32, spec, image_set(spec, frames, "scenes"), read_recipe("fast"))
    artifact = ArtifactId(Backend.ONNXRUNTIME, Precision.FP32)
    content = fp32.SerializeToString()
    return Residual(
        NetworkUnderTest(str(artifact), spec, (content,), digest_of(content.hex()), artifact),
        lower_tflite(quantise(calibration, spec), calibration.quant_params),
        dict(read_set(folder)),
        ResultCache(tmp_path_factory.mktemp("cache")),
    )


def test_a_sound_residual_network_has_no_layer_of_note(residual: Residual) -> None:
    layer, figure = residual.worst_layer(residual.int8)
    assert figure >= LEAST_SOUND_DB, layer


@pytest.mark.parametrize("fault", FAULTS)
def test_the_layer_floor_names_the_operator_with_the_fault(residual: Residual, fault: str) -> None:
    value, change = FAULTS[fault]
    tensors = residual.int8.tensors
    operators = [change(o) if tensors[o.outputs[0]].name == value else o for o in residual.int8.operators]
    assert operators != residual.int8.operators
    layer, figure = residual.worst_layer(replace(residual.int8, operators=operators))
    assert layer in (value, value.removesuffix(".activation"))
    assert figure < LEAST_SOUND_DB
