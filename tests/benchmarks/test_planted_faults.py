"""Faults planted into sound artifacts: the default gate catches each, and the right floor names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from retinaface_edge.benchmarks.drift.layer_metrics import layer_drift
from retinaface_edge.benchmarks.drift.run import drift
from retinaface_edge.benchmarks.gates.gate import Outcome, apply_gate, failures, read_gate
from retinaface_edge.benchmarks.inference.measurement import Execution, read_set
from retinaface_edge.benchmarks.inference.network_under_test import NetworkUnderTest, digest_of, networks_of
from retinaface_edge.benchmarks.inference.result_cache import ResultCache
from retinaface_edge.calibration.dataset.synthetic_scenes import scenes
from retinaface_edge.calibration.record import quant_params_from_json
from retinaface_edge.export.lower.openvino import lower_openvino
from retinaface_edge.export.lower.tflite import lower_tflite
from retinaface_edge.export.lower.tflite_schema import serialise
from retinaface_edge.runtime import Bundle, Spec

PICTURES = 6
BIASED = "backbone.stages.1.3.pointwise"
STRIDED = [f"backbone.stages.{stage}.depthwise" for stage in ("0.1", "0.3", "1.0", "2.0")]
"""Where a shift by one pixel shows; in the first convolution it hardly does, for neighbouring pixels are alike."""
OUTPUTS = [output.name for output in Spec().outputs]

Fault = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pictures")
    for index, frame in enumerate(scenes(PICTURES, seed=7)):
        Image.fromarray(frame[:, :, ::-1]).save(folder / f"{index}.png")
    return read_set(folder)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with ResultCache(tmp_path_factory.mktemp("cache")) as opened:
        yield opened


@pytest.fixture(scope="module")
def sound(bundle: Bundle) -> dict[str, NetworkUnderTest]:
    return {network.name: network for network in networks_of(bundle)}


@pytest.fixture
def judge(
    sound: dict[str, NetworkUnderTest], pictures: dict[str, Path], cache: ResultCache
) -> Callable[..., list[Outcome]]:
    """The failures of the default gate when one artifact is replaced."""

    def run(faulty: NetworkUnderTest | None = None, layers: bool = False) -> list[Outcome]:
        networks = dict(sound)
        if faulty is not None:
            networks[faulty.name] = faulty
        result = drift(list(networks.values()), pictures, Execution(cache))
        if layers and faulty is not None:
            compared = layer_drift(sound["onnxruntime fp32"], [faulty], pictures, Execution(cache))
            result = replace(result, layers=compared)
        return failures(apply_gate(read_gate(None), result))

    return run


@pytest.fixture
def judge_fault(
    judge: Callable[..., list[Outcome]], sound: dict[str, NetworkUnderTest], bundle: Bundle
) -> Callable[..., list[Outcome]]:
    """The default gate's failures when an INT8 artifact is built from the bundle's own model with a fault in it."""
    quant_params = quant_params_from_json(json.loads((bundle.path / "calibration.json").read_text()))

    def run(fault: Fault, name: str, layers: bool = False) -> list[Outcome]:
        network = sound[name]
        model = onnx.load_from_string(sound["onnxruntime int8"].files[0])
        fault(model)
        if name.startswith("tflite"):
            files: tuple[bytes, ...] = (serialise(lower_tflite(model, quant_params)),)
        elif name.startswith("openvino"):
            files = lower_openvino(model, bundle.spec)
        else:
            files = (model.SerializeToString(),)
        return judge(with_files(network, files), layers)

    return run


def with_files(network: NetworkUnderTest, files: tuple[bytes, ...]) -> NetworkUnderTest:
    assert files != network.files
    return replace(network, files=files, digest=digest_of(*(file.hex() for file in files)))


def edit(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the initializer `name`."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(change(array).astype(array.dtype), name))


def head_of(output: str) -> str:
    head, stride = output.split("_")
    return f"{head}.{(8, 16, 32).index(int(stride))}"


def stretched(output: str) -> Fault:
    def fault(model: onnx.ModelProto) -> None:
        for part in ("weight", "bias"):
            edit(model, f"{head_of(output)}.{part}.scale", lambda scale: scale * 1.1)

    return fault


def rgb_for_bgr(model: onnx.ModelProto) -> None:
    edit(model, "backbone.stem.weight.integers", lambda weight: weight[:, ::-1])
    edit(model, "image.zero_point", lambda mean: mean[::-1])


def landmarks_swapped(model: onnx.ModelProto) -> None:
    for part in ("weight", "bias"):
        for kind in ("integers", "scale"):
            edit(model, f"landmark.0.{part}.{kind}", lambda array: np.roll(array, 10, axis=0))


def bias_dropped(model: onnx.ModelProto) -> None:
    edit(model, f"{BIASED}.bias.integers", np.zeros_like)


def same_padding(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Conv" and list(attributes["strides"].ints) == [2, 2]:
            attributes["pads"].ints[:] = [0, 0, 1, 1]


def named(outcomes: list[Outcome], floor: str) -> set[tuple[str, str]]:
    """(artifact, output or layer) of the failures on one floor."""
    return {(o.figure.artifact, o.figure.of) for o in outcomes if o.figure and o.figure.floor == floor}


def test_sound_artifacts_pass_the_default_gate(judge: Callable[..., list[Outcome]]) -> None:
    assert [outcome.sentence for outcome in judge()] == []


@pytest.mark.parametrize("name", ["onnxruntime int8", "tflite int8"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_a_stretched_int8_output_is_named_by_the_tensor_floor(
    output: str,
    name: str,
    judge_fault: Callable[..., list[Outcome]],
) -> None:
    found = judge_fault(stretched(output), name)
    assert {of for _, of in named(found, "tensors")} == {output}
    assert any("gain is" in outcome.sentence for outcome in found)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_stretched_fp32_output_is_named_by_the_tensor_floor(
    output: str,
    judge: Callable[..., list[Outcome]],
    fp32: onnx.ModelProto,
    sound: dict[str, NetworkUnderTest],
    spec: Spec,
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(fp32)
    for part in ("weight", "bias"):
        edit(model, f"{head_of(output)}.{part}", lambda array: array * 1.1)
    found = judge(with_files(sound["openvino fp32"], lower_openvino(model, spec)))
    assert named(found, "tensors") == {("openvino fp32", output)}


@pytest.mark.parametrize("name", ["onnxruntime int8", "openvino int8", "tflite int8"])
@pytest.mark.parametrize("fault", [rgb_for_bgr, landmarks_swapped, bias_dropped, same_padding])
def test_every_fault_fails_the_default_gate_in_every_int8_artifact(
    fault: Fault,
    name: str,
    judge_fault: Callable[..., list[Outcome]],
) -> None:
    found = judge_fault(fault, name)
    assert found, f"the gate let {fault.__name__} in {name} pass"
    assert all(name in (o.figure.artifact, o.figure.reference) for o in found if o.figure)


@pytest.mark.parametrize("name", ["onnxruntime int8", "tflite int8"])
@pytest.mark.parametrize(
    ("fault", "layers"),
    [(rgb_for_bgr, {"backbone.stem"}), (bias_dropped, {BIASED}), (same_padding, set(STRIDED))],
)
def test_the_layer_floor_names_the_layers_with_the_fault(
    fault: Fault,
    layers: set[str],
    name: str,
    judge_fault: Callable[..., list[Outcome]],
) -> None:
    found = judge_fault(fault, name, layers=True)
    assert {artifact for artifact, _ in named(found, "layers")} == {name}
    least = sorted(
        (outcome.figure.value, outcome.figure.of)
        for outcome in found
        if outcome.figure and outcome.figure.floor == "layers"
    )
    assert {layer for _, layer in least[: len(layers)]} == layers


def test_swapped_landmarks_are_named_by_tensors_and_detections(
    judge_fault: Callable[..., list[Outcome]],
) -> None:
    found = judge_fault(landmarks_swapped, "tflite int8")
    assert named(found, "tensors") == {("tflite int8", "landmark_8")}
    figures = {outcome.figure.name for outcome in found if outcome.figure and outcome.figure.floor == "detections"}
    assert figures <= {"landmark_shift_mean"}
