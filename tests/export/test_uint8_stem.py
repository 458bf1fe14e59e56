"""Bytes in the first convolution: the same numbers as centred pixels and zeros around them give."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper

from retinaface_edge.calibration.calibrate import Calibration
from retinaface_edge.calibration.graph.onnx_graph import read_graph, to_proto
from retinaface_edge.calibration.graph.session import run
from retinaface_edge.calibration.qdq import quantise
from retinaface_edge.export.graph.multiply_accumulates import multiply_accumulates
from retinaface_edge.export.graph.passes.float_biases import float_biases
from retinaface_edge.export.graph.passes.uint8_stem import uint8_stem
from retinaface_edge.export.lower.tflite import lower_tflite
from retinaface_edge.export.models.retinaface import RetinaFace, architecture
from retinaface_edge.runtime import Spec


def with_byte_stem(model: onnx.ModelProto) -> onnx.ModelProto:
    return to_proto(uint8_stem(read_graph(model)))


def with_float_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    return to_proto(float_biases(read_graph(model)))


def stem_of(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    """The first convolution's result, by ONNX Runtime without its own rewriting."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(onnx.helper.make_tensor_value_info("backbone.stem", onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["backbone.stem"], {"image": image})[0])


def by_definition(model: onnx.ModelProto, image: np.ndarray, spec: Spec) -> np.ndarray:
    """Mean subtracted, zeros padded, a convolution of stride 2, in float64 by PyTorch, from the graph's constants."""
    constants = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}
    weight = constants.get("backbone.stem.weight")
    if weight is None:
        scale = constants["backbone.stem.weight.scale"].reshape(-1, 1, 1, 1)
        weight = constants["backbone.stem.weight.integers"] * scale
        bias = constants["backbone.stem.bias.integers"] * constants["backbone.stem.bias.scale"]
    else:
        bias = constants["backbone.stem.bias"]
    centred = torch.from_numpy(image.astype(np.float64) - np.array(spec.mean)).permute(0, 3, 1, 2)
    tensors = [torch.from_numpy(np.ascontiguousarray(value)) for value in (weight, bias)]
    return torch.nn.functional.conv2d(centred, *tensors, stride=2, padding=1).numpy()


def test_the_stem_is_its_definition(
    fp32: onnx.ModelProto, int8: onnx.ModelProto, spec: Spec, photographs: list[np.ndarray]
) -> None:
    """At the borders above all: white pictures differ most from what is padded around them."""
    white = np.full(spec.input_shape, 255, np.uint8)
    for model in (fp32, with_float_biases(int8)):
        changed = with_byte_stem(model)
        assert [node.op_type for node in changed.graph.node][:2] == ["Concat", "Concat"]
        for image in (white, photographs[0]):
            expected = by_definition(fp32 if model is fp32 else int8, image, spec)
            assert np.abs(stem_of(changed, image) - expected).max() <= 2e-5 * max(1.0, np.abs(expected).max())


def test_a_stem_left_float_in_a_quantised_graph_is_float(
    calibration: Calibration, spec: Spec, photographs: list[np.ndarray]
) -> None:
    recipe = replace(calibration.recipe, float_layers=("backbone.stem",))
    mixed = with_float_biases(quantise(replace(calibration, recipe=recipe), spec))
    changed = with_byte_stem(mixed)
    assert [node.op_type for node in changed.graph.node][:4] == ["Concat", "Concat", "Cast", "Transpose"]
    expected = by_definition(mixed, photographs[0], spec)
    assert np.abs(stem_of(changed, photographs[0]) - expected).max() <= 2e-5 * max(1.0, np.abs(expected).max())


def test_fp32_outputs_stay_the_same(fp32: onnx.ModelProto, spec: Spec, photographs: list[np.ndarray]) -> None:
    changed = with_byte_stem(fp32)
    onnx.checker.check_model(changed, full_check=True)
    for image in photographs:
        for ours, theirs in zip(run(changed, spec, image), run(fp32, spec, image), strict=True):
            assert np.abs(ours - theirs).max() <= 1e-3


def test_tflite_takes_bytes_too_and_pads_nothing_in_vain(fp32: onnx.ModelProto) -> None:
    lowered = lower_tflite(fp32, {})
    assert [operator.name for operator in lowered.operators][:4] == [
        "CONCATENATION",
        "CONCATENATION",
        "CAST",
        "CONV_2D",
    ]
    amounts = [lowered.tensors[operator.inputs[1]].data for operator in lowered.operators if operator.name == "PAD"]
    assert amounts
    assert all(amount is not None and amount.any() for amount in amounts)


def test_other_graphs_are_left_alone(fp32: onnx.ModelProto) -> None:
    changed = uint8_stem(read_graph(fp32))
    assert uint8_stem(changed) is changed, "a second time there is nothing to do"
    halves = onnx.ModelProto()
    halves.CopyFrom(fp32)
    mean = next(tensor for tensor in halves.graph.initializer if tensor.name == "mean")
    mean.CopyFrom(numpy_helper.from_array(np.array([104.5, 117.0, 123.0], np.float32), "mean"))
    model = read_graph(halves)
    assert uint8_stem(model) is model, "a mean that is no byte cannot be padded"
    nothing = read_graph(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])))
    assert uint8_stem(nothing) is nothing


def test_work_is_counted_as_pytorch_does_it(fp32: onnx.ModelProto) -> None:
    """The oracle counts while the training form runs; folding changes the score heads alone, to one logit of two."""
    counted = []

    def count(module: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        assert isinstance(module, torch.nn.Conv2d)
        outputs = output.numel() // (2 if any(module is score for score in model.score) else 1)
        counted.append(outputs * module.weight[0].numel())

    model = RetinaFace(architecture()).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 3, 480, 640))
    assert multiply_accumulates(fp32) == sum(counted)
