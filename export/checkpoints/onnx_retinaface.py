"""RetinaFace from an ONNX file of any exporter: matched by its graph, not by names."""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor

from ..models.backbones import BackboneError, Table, backbone_table
from ..models.backbones.mobilenet_v1 import STEM, mobilenet_v1
from ..models.backbones.resnet import BLOCKS
from ..models.neck import Upsampling
from ..models.retinaface import Architecture
from .assemble import NORM, NORM_EPSILON, Layer, Recognised, assemble
from .checkpoint import Checkpoint, CheckpointError, some
from .families import BIUBUG6, LEVELS_FROM, ONE_MEGABYTE, OURS, YAKHYO
from .interpretation import Overrides, interpretation
from .layer_names import our_layers
from .onnx_graph import OnnxNetwork, load_model, onnx_network
from .our_topology import our_topology
from .topology import INPUT, activation, matched

UNNAMED = "unnamed"
NAME_MARKS = {
    YAKHYO.name: ("/fx/", "fx.", "class_head"),
    BIUBUG6.name: ("/body/", "body.", "BboxHead"),
    OURS: ("backbone.",),
}
"""What names of nodes or weights, where an exporter left them, say about the family."""


def read_onnx(content: bytes, name: str, overrides: Overrides | None = None) -> Checkpoint:
    """Read a serialised ONNX model, batch norm folded or not, of any opset. `name` is for messages.

    Raises `CheckpointError` when its graph is not that of a RetinaFace on a known backbone.
    """
    model = load_model(content, name)
    try:
        network = onnx_network(model, name)
        recognised, state = _matched(model, network, name)
    except CheckpointError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # nodes without inputs, …
        raise CheckpointError(f"{name} is a malformed ONNX model ({error!r}); export it again") from error
    built = assemble(state, recognised, name)
    settings = interpretation(built.architecture, _with_activation(built.architecture, overrides, name), name)
    wrappings = ("float16 weights",) if network.half else ()
    return Checkpoint(built, recognised.family, hashlib.sha256(content).hexdigest(), settings, wrappings)


def _with_activation(shape: Architecture, overrides: Overrides | None, name: str) -> Overrides:
    """The user's settings and the activation that the graph has. Raises `CheckpointError` when they differ."""
    given = overrides or Overrides()
    if not shape.may_be_leaky:
        return given
    if given.leaky not in (None, shape.leaky):
        has = "LeakyReLU" if shape.leaky else "ReLU"
        raise CheckpointError(f"{name} has {has} in its graph, so another cannot be chosen; leave out --activation")
    return replace(given, leaky=shape.leaky)


def _matched(model: ModelProto, network: OnnxNetwork, name: str) -> tuple[Recognised, dict[str, Tensor]]:
    for shape in _candidates(network):
        pairs = matched(our_topology(shape), network.topology)
        if pairs is not None:
            layers = []
            for layer in our_layers(shape):
                key = pairs[layer.ours]
                layers.append(Layer(layer.ours, key, None if layer.norm is None else f"{key}.norm"))
            state: dict[str, Tensor] = {}
            for layer in layers:
                state.update(_tensors(network, layer, name))
            return Recognised(_family(model, shape.backbone), shape, tuple(layers)), state
    raise CheckpointError(f"{name} {_difference(network)}")


def _difference(network: OnnxNetwork) -> str:
    """Why no candidate fits, as far as it can be told."""
    relevant = network.topology.relevant()
    foreign = sorted({network.unknown[index] for index in relevant if index in network.unknown})
    advice = "export the training code's own network, or give its .pth file"
    if not relevant:
        return f"has no convolutions, so it is not a RetinaFace; {advice}"
    if foreign:
        return f"has operators before its heads that no RetinaFace has: {some(foreign)}; {advice}"
    count = sum(network.topology.steps[index].key is not None for index in relevant)
    return f"has {count} convolutions, which are not arranged as in a RetinaFace on a known backbone; {advice}"


def _candidates(network: OnnxNetwork) -> Iterator[Architecture]:
    """Every shape that its stem and its heads allow."""
    tables = list(_tables(network))
    levels: dict[int, list[int]] = defaultdict(list)
    inputs = set()
    for index in network.topology.heads():
        _, shape, *_ = network.topology.steps[index].kind
        assert isinstance(shape, tuple)
        levels[network.topology.steps[index].inputs[0]].append(shape[0])
        inputs.add(shape[1])
    for table in (table for table in tables if table.pyramid is None):
        yield Architecture(table, None, (8, 16, 32, 64), (3, 2, 2, 3))
    sizes = {tuple(sorted(level)) for level in levels.values()}
    if len(sizes) != 1 or len(inputs) != 1 or len(levels) not in LEVELS_FROM:
        return
    (outputs,), (channels,) = sizes, inputs
    if len(outputs) != 3 or outputs[0] < 2 or outputs[1] != 2 * outputs[0]:
        return
    anchors = outputs[0] // 2
    bilinear = any(step.kind == ("upsample", "bilinear") for step in network.topology.steps)
    upsampling = Upsampling.BILINEAR if bilinear else Upsampling.NEAREST
    leaky = any(step.kind == activation("leaky-relu") for step in network.topology.steps)
    for table in (table for table in tables if table.pyramid is not None):
        for strides in {LEVELS_FROM[len(levels)], (8, 16, 32, 64)[: len(levels)]}:
            counts, landmarks = (anchors,) * len(strides), max(outputs[2] // (2 * anchors), 1)
            with contextlib.suppress(BackboneError):
                yield Architecture(table, channels, strides, counts, landmarks, upsampling, leaky)


def _tables(network: OnnxNetwork) -> Iterator[Table]:
    steps = network.topology.steps
    for index in network.topology.relevant():
        step = steps[index]
        if step.key is None or any(steps[read].kind != INPUT for read in step.inputs):
            continue
        _, shape, *_ = step.kind
        assert isinstance(shape, tuple)
        if shape[2] == 7:
            yield from (backbone_table(f"resnet{depth}") for depth in BLOCKS)
        elif STEM // 8 <= shape[0] <= 2 * STEM:
            yield mobilenet_v1(shape[0] / STEM)
            yield from (backbone_table(name) for name in ("mobilenet_v2", "slim", "rfb"))
        return


def _tensors(network: OnnxNetwork, layer: Layer, name: str) -> Iterator[tuple[str, Tensor]]:
    """The weights of one convolution, in the form that `assemble` takes."""
    theirs = network.layers[layer.conv]
    zeros = np.zeros(len(theirs.weight), np.float32)
    bias = zeros if theirs.bias is None else theirs.bias
    yield f"{layer.conv}.weight", _tensor(theirs.weight)
    if theirs.norm is None:
        yield f"{layer.conv}.bias", _tensor(bias)
        return
    if layer.norm is None:
        raise CheckpointError(f"{name} has a batch norm after {layer.conv!r}, which is a head; export it again")
    gain, shift, mean, variance = theirs.norm
    parts = (gain, shift, mean - bias, variance + np.float32(theirs.epsilon - NORM_EPSILON))
    yield from ((f"{layer.norm}.{part}", _tensor(value)) for part, value in zip(NORM, parts, strict=True))


def _tensor(values: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))


def _family(model: ModelProto, table: Table) -> str:
    """By the names that the exporter left; `UNNAMED` where it left none."""
    if table.pyramid is None:
        return ONE_MEGABYTE
    names = [*(node.name for node in model.graph.node), *(tensor.name for tensor in model.graph.initializer)]
    for family, marks in NAME_MARKS.items():
        if any(name.startswith(marks) for name in names):
            return family
    return UNNAMED
