"""Where each family keeps each layer: module names in our model, and in theirs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from ..models.backbones import Table
from ..models.layers import ConvNorm, Residual
from ..models.retinaface import Architecture, RetinaFace
from .assemble import Layer

CONTEXT = {
    "conv3": "conv3X3",
    "conv5_1": "conv5X5_1",
    "conv5_2": "conv5X5_2",
    "conv7_2": "conv7X7_2",
    "conv7_3": "conv7x7_3",
}
HEADS = {"score": "conf", "box": "loc", "landmark": "landm"}
"""Our heads, and those of the one-megabyte nets."""


@dataclass(frozen=True)
class HeadNames:
    """Names of the heads' convolutions, with `{}` for the level."""

    score: str
    box: str
    landmark: str

    def layers(self, shape: Architecture) -> Iterator[Layer]:
        """All of them."""
        for ours, theirs in (("score", self.score), ("box", self.box), ("landmark", self.landmark)):
            for level in range(len(shape.strides)):
                yield Layer(f"{ours}.{level}", theirs.format(level), None)


def backbone_layers(
    table: Table, prefix: str, depthwise: tuple[str, str, str, str], strides: tuple[int, ...]
) -> Iterator[Layer]:
    """The backbone's, up to the last of `strides`, under `prefix`: torchvision's names for ResNet and MobileNetV2."""
    last = max(table.levels[stride][:2] for stride in strides)
    if table.name.startswith("resnet"):
        yield Layer("backbone.stem", f"{prefix}.conv1", f"{prefix}.bn1")
    elif table.name == "mobilenet_v2":
        yield Layer("backbone.stem", f"{prefix}.features.0.0", f"{prefix}.features.0.1")
    else:
        yield Layer("backbone.stem", f"{prefix}.stage1.0.0", f"{prefix}.stage1.0.1")
    number = 0
    with torch.device("meta"):
        for stage, index, inputs, block in table.rows():
            if (stage, index) > last:
                return
            number += 1
            ours, module = f"backbone.stages.{stage}.{index}", block.module(inputs)
            if table.name.startswith("resnet"):
                yield from _resnet_block(ours, f"{prefix}.layer{stage + 1}.{index}", module)
            elif table.name == "mobilenet_v2":
                yield from _inverted_residual(ours, f"{prefix}.features.{number}", module)
            else:
                theirs = f"{prefix}.stage{stage + 1}.{index + 1 if stage == 0 else index}"
                yield Layer(f"{ours}.depthwise", f"{theirs}.{depthwise[0]}", f"{theirs}.{depthwise[1]}")
                yield Layer(f"{ours}.pointwise", f"{theirs}.{depthwise[2]}", f"{theirs}.{depthwise[3]}")


def neck_layers(shape: Architecture) -> Iterator[Layer]:
    """Pyramid and context modules of the families that follow the first PyTorch code."""
    levels = len(shape.tapped)
    modules = [(f"pyramid.lateral.{i}", f"fpn.output{i + 1}") for i in range(levels)]
    modules += [(f"pyramid.merge.{i}", f"fpn.merge{i + 1}") for i in range(levels - 1)]
    if levels < len(shape.strides):
        modules.append(("pyramid.extra", f"fpn.output{levels + 1}"))
    modules += [
        (f"context.{i}.{ours}", f"ssh{i + 1}.{theirs}")
        for i in range(len(shape.strides))
        for ours, theirs in CONTEXT.items()
    ]
    for ours, theirs in modules:
        yield Layer(ours, f"{theirs}.0", f"{theirs}.1")


def one_megabyte_layers(shape: Architecture) -> Iterator[Layer]:
    """Slim's and RFB's."""
    yield Layer("backbone.stem", "conv1.0", "conv1.1")
    for number, (stage, index, _, _) in enumerate(shape.backbone.rows(), start=2):
        ours, theirs = f"backbone.stages.{stage}.{index}", f"conv{number}"
        if stage == 3:
            for part, layer in enumerate(("0", "2.0", "2.2")):
                yield Layer(f"{ours}.{part}.conv", f"{theirs}.{layer}", None)
        elif shape.backbone.name == "rfb" and number == 8:
            yield from _dilated_block(ours, theirs)
        else:
            yield Layer(f"{ours}.depthwise", f"{theirs}.0", f"{theirs}.1")
            yield Layer(f"{ours}.pointwise", f"{theirs}.3", f"{theirs}.4")
    for head, name in HEADS.items():
        for level in range(len(shape.strides) - 1):
            yield Layer(f"{head}.{level}.depthwise.conv", f"{name}.{level}.0", None)
            yield Layer(f"{head}.{level}.pointwise", f"{name}.{level}.2", None)
        yield Layer(f"{head}.{len(shape.strides) - 1}", f"{name}.{len(shape.strides) - 1}", None)


def our_layers(shape: Architecture) -> Iterator[Layer]:
    """Our own names, read off the model."""
    with torch.device("meta"):
        model = RetinaFace(shape)
    normed = {name for name, module in model.named_modules() if isinstance(module, ConvNorm)}
    for name, module in model.named_modules():
        if name in normed:
            yield Layer(name, f"{name}.conv", f"{name}.norm")
        elif isinstance(module, nn.Conv2d) and name.rpartition(".")[0] not in normed:
            yield Layer(name, name, None)


def _resnet_block(ours: str, theirs: str, module: nn.Module) -> Iterator[Layer]:
    chain = module.get_submodule("chain")
    for index, _ in enumerate(chain.children()):
        yield Layer(f"{ours}.chain.{index}", f"{theirs}.conv{index + 1}", f"{theirs}.bn{index + 1}")
    if isinstance(module, Residual) and module.shortcut is not None:
        yield Layer(f"{ours}.shortcut", f"{theirs}.downsample.0", f"{theirs}.downsample.1")


def _inverted_residual(ours: str, theirs: str, module: nn.Module) -> Iterator[Layer]:
    """Each convolution with an activation is a sequence of its own, the projection and its norm stand beside them."""
    if isinstance(module, ConvNorm):
        yield Layer(ours, f"{theirs}.0", f"{theirs}.1")
        return
    last = len(list(module.get_submodule("chain").children())) - 1
    for index in range(last):
        yield Layer(f"{ours}.chain.{index}", f"{theirs}.conv.{index}.0", f"{theirs}.conv.{index}.1")
    yield Layer(f"{ours}.chain.{last}", f"{theirs}.conv.{last}", f"{theirs}.conv.{last + 1}")


def _dilated_block(ours: str, theirs: str) -> Iterator[Layer]:
    for branch, length in enumerate((3, 3, 4)):
        for index in range(length):
            name = f"{theirs}.branch{branch}.{index}"
            yield Layer(f"{ours}.branches.{branch}.{index}", f"{name}.conv", f"{name}.bn")
    yield Layer(f"{ours}.merge", f"{theirs}.ConvLinear.conv", f"{theirs}.ConvLinear.bn")
    yield Layer(f"{ours}.shortcut", f"{theirs}.shortcut.conv", f"{theirs}.shortcut.bn")
