"""ONNX files of any exporter are read by their graph; ONNX Runtime on the file itself is the oracle."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from untrained import random_detector

from retinaface_edge.export.checkpoints.interpretation import Overrides
from retinaface_edge.export.checkpoints.onnx_retinaface import read_onnx
from retinaface_edge.export.checkpoints.source import CheckpointError, read_checkpoint
from retinaface_edge.export.models.backbones import backbone_table
from retinaface_edge.export.models.neck import Upsampling
from retinaface_edge.export.models.retinaface import Architecture, RetinaFace, architecture

SIDE = 64


def exported(model: torch.nn.Module, opset: int, dynamic: bool = False, folded: bool = True) -> onnx.ModelProto:
    """By PyTorch's older exporter, which writes every opset from 9 on."""
    buffer = io.BytesIO()
    mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, SIDE, SIDE),),
            buffer,
            dynamo=False,
            opset_version=opset,
            training=mode,
            do_constant_folding=folded,
            input_names=["pixels"],
            dynamic_axes={"pixels": {2: "height", 3: "width"}} if dynamic else None,
        )
    return onnx.load_from_string(buffer.getvalue())


def anonymous(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every name replaced, and nodes in another order in which they can be computed."""
    names: dict[str, str] = {"": ""}
    for index, tensor in enumerate(model.graph.initializer):
        names[tensor.name] = tensor.name = f"t{index}"
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
        node.input[:] = [names.setdefault(name, f"v{len(names)}") for name in node.input]
        node.output[:] = [names.setdefault(name, f"v{len(names)}") for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names[value.name]
    del model.graph.value_info[:]
    waiting, done, order = list(model.graph.node), {"", *(v.name for v in model.graph.input)}, []
    done |= {tensor.name for tensor in model.graph.initializer}
    shuffler = random.Random(0)
    while waiting:
        ready = [node for node in waiting if set(node.input) <= done]
        chosen = shuffler.choice(ready)
        order.append(chosen)
        done |= set(chosen.output)
        waiting.remove(chosen)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in order]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights stored as float16, brought back by a Cast."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            name = tensor.name
            stored = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}.half")
            tensor.CopyFrom(stored)
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], f"cast.{name}", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def assert_read_as_it_runs(content: onnx.ModelProto, shape: Architecture) -> None:
    data = content.SerializeToString()
    read = read_onnx(data, "model.onnx")
    assert read.model.architecture == shape
    pixels = np.random.default_rng(0).normal(scale=60, size=(1, 3, SIDE, SIDE)).astype(np.float32)
    session = onnxruntime.InferenceSession(data)
    expected = session.run(None, {session.get_inputs()[0].name: pixels})
    with torch.no_grad():
        results = [level.numpy() for head in read.model(torch.from_numpy(pixels)) for level in head]
    for result, reference in zip(results, expected, strict=True):
        assert np.abs(result - reference).max() <= 1e-4 * max(1.0, float(np.abs(reference).max()))


@pytest.mark.parametrize(
    ("opset", "dynamic", "folded", "change"),
    [
        (9, False, True, anonymous),
        (11, True, True, anonymous),
        (11, False, False, anonymous),
        (13, True, False, lambda model: model),
        (17, False, True, half),
    ],
)
def test_every_form_of_export_is_read(
    opset: int, dynamic: bool, folded: bool, change: Callable[[onnx.ModelProto], onnx.ModelProto]
) -> None:
    model = random_detector(1, architecture())
    assert_read_as_it_runs(change(exported(model, opset, dynamic, folded)), model.architecture)


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet18", "resnet50", "slim", "rfb"])
def test_every_backbone_is_read_without_names(backbone: str) -> None:
    shape = architecture(backbone)
    assert_read_as_it_runs(anonymous(exported(random_detector(2, shape), 13)), shape)


@pytest.mark.parametrize("opset", [18, 23])
def test_the_newer_exporter_is_read(opset: int) -> None:
    model = random_detector(3, architecture())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model, (torch.zeros(1, 3, SIDE, SIDE),), dynamo=True, opset_version=opset, verbose=False
        )
    assert program is not None
    assert_read_as_it_runs(program.model_proto, model.architecture)


def test_other_upsampling_and_landmarks_are_read_from_the_graph() -> None:
    shape = Architecture(backbone_table("mobilenet_v1_0.25"), landmarks=98, upsampling=Upsampling.BILINEAR)
    assert_read_as_it_runs(anonymous(exported(random_detector(4, shape), 13)), shape)


def test_the_activation_is_read_from_the_graph_and_no_other_can_be_chosen() -> None:
    shape = replace(architecture(), leaky=False)
    content = anonymous(exported(random_detector(4, shape), 13))
    assert_read_as_it_runs(content, shape)
    with pytest.raises(CheckpointError, match=r"has ReLU in its graph.* leave out --activation"):
        read_onnx(content.SerializeToString(), "model.onnx", Overrides(leaky=True))


def test_a_quantised_file_is_said_to_be_one() -> None:
    model = exported(random_detector(5, architecture()), 13)
    model.graph.node[0].op_type = "QLinearConv"
    with pytest.raises(CheckpointError, match=r"already quantised \(QLinearConv\)"):
        read_onnx(model.SerializeToString(), "model.onnx")


def test_another_network_is_refused_with_what_is_foreign_in_it() -> None:
    model = exported(random_detector(6, architecture()), 13)
    next(node for node in model.graph.node if node.op_type == "LeakyRelu").op_type = "Selu"
    with pytest.raises(CheckpointError, match="operators before its heads that no RetinaFace has: Selu"):
        read_onnx(model.SerializeToString(), "model.onnx")


def test_one_stride_that_differs_is_another_network() -> None:
    model: RetinaFace = random_detector(7, architecture())
    content = exported(model, 13)
    convolution = next(node for node in content.graph.node if node.op_type == "Conv")
    next(item for item in convolution.attribute if item.name == "strides").ints[:] = [1, 1]
    with pytest.raises(CheckpointError, match="not arranged as in a RetinaFace"):
        read_onnx(content.SerializeToString(), "model.onnx")


def test_a_public_file_of_an_old_exporter_is_read(shared: Path) -> None:
    path = shared / "checkpoints" / "conv_n_names.onnx"
    read = read_checkpoint(path)
    assert (read.backbone, read.interpretation.landmarks) == ("mobilenet_v1_0.25", 98)
    pixels = np.random.default_rng(1).normal(size=(1, 3, 640, 640)).astype(np.float32)
    boxes, scores, landmarks = onnxruntime.InferenceSession(path.read_bytes()).run(None, {"inputImage": pixels})
    with torch.no_grad():
        predictions = read.model(torch.from_numpy(pixels))
    rows = [
        torch.cat([level.permute(0, 2, 3, 1).reshape(1, -1, size) for level in levels], 1).numpy()
        for levels, size in zip(predictions, (2, 4, 196), strict=True)
    ]
    for result, expected in ((rows[1], boxes), (rows[2], landmarks)):
        assert np.abs(result - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.abs(torch.softmax(torch.from_numpy(rows[0]), -1).numpy()[..., 1] - scores).max() < 1e-4
