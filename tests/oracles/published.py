"""Published RetinaFace networks, read from their definitions, in plain functions over a state dict.

Nothing here is shared with the product: names, shapes and arithmetic are written down a second time. A weight is made
at random when a definition first asks for it, so running a definition once gives the family's list of keys and shapes.
Arithmetic is float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Outputs = tuple[list[Tensor], list[Tensor], list[Tensor]]
"""Scores, boxes and landmarks of each level, NCHW."""
Activation = Callable[[Tensor], Tensor]


class Weights:
    """A state dict that grows as layers are asked for."""

    def __init__(self, seed: int) -> None:
        self.state: dict[str, Tensor] = {}
        self.random = torch.Generator().manual_seed(seed)

    def tensor(self, key: str, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        if key not in self.state:
            self.state[key] = low + (high - low) * torch.rand(shape, generator=self.random)
        assert self.state[key].shape == shape, key
        return self.state[key].double()

    def conv(
        self, x: Tensor, key: str, outputs: int, kernel: int, stride: int = 1, *,
        groups: int = 1, dilation: int = 1, bias: bool = False,
    ) -> Tensor:  # fmt: skip
        inputs = x.shape[1] // groups
        limit = (6.0 / (inputs * kernel * kernel)) ** 0.5
        weight = self.tensor(f"{key}.weight", (outputs, inputs, kernel, kernel), -limit, limit)
        offset = self.tensor(f"{key}.bias", (outputs,), -0.2, 0.2) if bias else None
        padding = (kernel // 2) * dilation
        return functional.conv2d(x, weight, offset, stride, padding, dilation, groups)

    def norm(self, x: Tensor, key: str) -> Tensor:
        size = (x.shape[1],)
        gain, shift = self.tensor(f"{key}.weight", size, 0.5, 1.0), self.tensor(f"{key}.bias", size, -0.2, 0.2)
        mean, variance = (
            self.tensor(f"{key}.running_mean", size, -0.2, 0.2),
            self.tensor(f"{key}.running_var", size, 0.5, 1.5),
        )
        self.state.setdefault(f"{key}.num_batches_tracked", torch.tensor(7))
        shape = (1, -1, 1, 1)
        return (x - mean.view(shape)) / torch.sqrt(variance.view(shape) + 1e-5) * gain.view(shape) + shift.view(shape)

    def unit(self, x: Tensor, conv: str, norm: str, outputs: int, kernel: int, stride: int = 1, **more: int) -> Tensor:
        return self.norm(self.conv(x, conv, outputs, kernel, stride, **more), norm)  # type: ignore[arg-type]


def leaky(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.1 * x)


def relu(x: Tensor) -> Tensor:
    return torch.maximum(x, torch.zeros_like(x))


def relu6(x: Tensor) -> Tensor:
    return torch.minimum(relu(x), torch.full_like(x, 6.0))


def mobilenet_v1(
    w: Weights, x: Tensor, prefix: str, parts: tuple[str, str, str, str], base: int, act: Activation = leaky
) -> list[Tensor]:
    """Stages 1 to 3 of the published MobileNetV1: `base` channels after the first convolution."""
    x = act(w.unit(x, f"{prefix}.stage1.0.0", f"{prefix}.stage1.0.1", base, 3, 2))
    plan = {
        1: [(2, 1), (4, 2), (4, 1), (8, 2), (8, 1)],
        2: [(16, 2)] + [(16, 1)] * 5,
        3: [(32, 2), (32, 1)],
    }
    features = []
    for stage, blocks in plan.items():
        for index, (times, stride) in enumerate(blocks):
            name = f"{prefix}.stage{stage}.{index + (stage == 1)}"
            depth = x.shape[1]
            x = act(w.unit(x, f"{name}.{parts[0]}", f"{name}.{parts[1]}", depth, 3, stride, groups=depth))
            x = act(w.unit(x, f"{name}.{parts[2]}", f"{name}.{parts[3]}", base * times, 1))
        features.append(x)
    return features


def mobilenet_v2(w: Weights, x: Tensor, prefix: str) -> list[Tensor]:
    """Features 6, 13 and 18 of the MobileNetV2 of torchvision."""
    x = relu6(w.unit(x, f"{prefix}.features.0.0", f"{prefix}.features.0.1", 32, 3, 2))
    number, kept = 0, []
    for expand, width, repeat, first in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for turn in range(repeat):
            number += 1
            name, stride, before = f"{prefix}.features.{number}.conv", first if turn == 0 else 1, x
            part, hidden = 0, x.shape[1] * expand
            if expand != 1:
                x = relu6(w.unit(x, f"{name}.0.0", f"{name}.0.1", hidden, 1))
                part = 1
            x = relu6(w.unit(x, f"{name}.{part}.0", f"{name}.{part}.1", hidden, 3, stride, groups=hidden))
            x = w.unit(x, f"{name}.{part + 1}", f"{name}.{part + 2}", width, 1)
            if stride == 1 and before.shape[1] == width:
                x = before + x
            if number in (6, 13):
                kept.append(x)
    kept.append(relu6(w.unit(x, f"{prefix}.features.18.0", f"{prefix}.features.18.1", 1280, 1)))
    return kept


def resnet(w: Weights, x: Tensor, prefix: str, counts: tuple[int, ...], bottleneck: bool) -> list[Tensor]:
    """Layers 2 to 4 of the ResNet of torchvision."""
    x = relu(w.unit(x, f"{prefix}.conv1", f"{prefix}.bn1", 64, 7, 2))
    x = functional.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    kept = []
    for layer, count in enumerate(counts, start=1):
        width = 32 * 2**layer
        for index in range(count):
            name, stride, before = f"{prefix}.layer{layer}.{index}", 2 if layer > 1 and index == 0 else 1, x
            last = width * 4 if bottleneck else width
            if bottleneck:
                x = relu(w.unit(x, f"{name}.conv1", f"{name}.bn1", width, 1))
                x = relu(w.unit(x, f"{name}.conv2", f"{name}.bn2", width, 3, stride))
                x = w.unit(x, f"{name}.conv3", f"{name}.bn3", last, 1)
            else:
                x = relu(w.unit(x, f"{name}.conv1", f"{name}.bn1", width, 3, stride))
                x = w.unit(x, f"{name}.conv2", f"{name}.bn2", last, 3)
            if stride == 2 or before.shape[1] != last:
                before = w.unit(before, f"{name}.downsample.0", f"{name}.downsample.1", last, 1, stride)
            x = relu(x + before)
        if layer > 1:
            kept.append(x)
    return kept


def neck(w: Weights, features: list[Tensor], channels: int, narrow: Activation = leaky) -> list[Tensor]:
    """FPN and SSH of the first PyTorch code; `narrow` is the activation of at most 64 channels."""
    act = narrow if channels <= 64 else relu
    one, two, three = (
        act(w.unit(x, f"fpn.output{i}.0", f"fpn.output{i}.1", channels, 1)) for i, x in enumerate(features, start=1)
    )
    doubled = three.repeat_interleave(2, 2).repeat_interleave(2, 3)
    two = act(w.unit(two + doubled, "fpn.merge2.0", "fpn.merge2.1", channels, 3))
    doubled = two.repeat_interleave(2, 2).repeat_interleave(2, 3)
    one = act(w.unit(one + doubled, "fpn.merge1.0", "fpn.merge1.1", channels, 3))
    result = []
    for level, x in enumerate((one, two, three), start=1):
        name = f"ssh{level}"
        three_by_three = w.unit(x, f"{name}.conv3X3.0", f"{name}.conv3X3.1", channels // 2, 3)
        shared = act(w.unit(x, f"{name}.conv5X5_1.0", f"{name}.conv5X5_1.1", channels // 4, 3))
        five = w.unit(shared, f"{name}.conv5X5_2.0", f"{name}.conv5X5_2.1", channels // 4, 3)
        seven = act(w.unit(shared, f"{name}.conv7X7_2.0", f"{name}.conv7X7_2.1", channels // 4, 3))
        seven = w.unit(seven, f"{name}.conv7x7_3.0", f"{name}.conv7x7_3.1", channels // 4, 3)
        result.append(relu(torch.cat([three_by_three, five, seven], dim=1)))
    return result


def heads(w: Weights, levels: list[Tensor], names: tuple[str, str, str], anchors: int = 2) -> Outputs:
    classes, boxes, points = names
    return (
        [w.conv(x, classes.format(i), 2 * anchors, 1, bias=True) for i, x in enumerate(levels)],
        [w.conv(x, boxes.format(i), 4 * anchors, 1, bias=True) for i, x in enumerate(levels)],
        [w.conv(x, points.format(i), 10 * anchors, 1, bias=True) for i, x in enumerate(levels)],
    )


BIUBUG6 = ("ClassHead.{}.conv1x1", "BboxHead.{}.conv1x1", "LandmarkHead.{}.conv1x1")
YAKHYO = ("class_head.class_head.{}", "bbox_head.bbox_head.{}", "landmark_head.landmark_head.{}")
BIUBUG6_PARTS, YAKHYO_PARTS = ("0", "1", "3", "4"), ("0.0", "0.1", "1.0", "1.1")
RESNETS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}


def one_megabyte(w: Weights, x: Tensor, dilated: bool) -> Outputs:
    """Slim, and RFB with the dilated block in the place of its eighth layer."""

    def separable(x: Tensor, name: str, outputs: int, stride: int) -> Tensor:
        depth = x.shape[1]
        x = relu(w.unit(x, f"{name}.0", f"{name}.1", depth, 3, stride, groups=depth))
        return relu(w.unit(x, f"{name}.3", f"{name}.4", outputs, 1))

    def two_steps(x: Tensor, name: str, outputs: int, stride: int = 1) -> Tensor:
        depth = x.shape[1]
        x = relu(w.conv(x, f"{name}.0", depth, 3, stride, groups=depth, bias=True))
        return w.conv(x, f"{name}.2", outputs, 1, bias=True)

    x = relu(w.unit(x, "conv1.0", "conv1.1", 16, 3, 2))
    kept = []
    plan = [
        (32, 1),
        (32, 2),
        (32, 1),
        (64, 2),
        (64, 1),
        (64, 1),
        (64, 1),
        (128, 2),
        (128, 1),
        (128, 1),
        (256, 2),
        (256, 1),
    ]
    for number, (outputs, stride) in enumerate(plan, start=2):
        if dilated and number == 8:
            x = receptive_field(w, x, "conv8", outputs)
        else:
            x = separable(x, f"conv{number}", outputs, stride)
        if number in (8, 11, 13):
            kept.append(x)
    x = relu(w.conv(x, "conv14.0", 64, 1, bias=True))
    kept.append(relu(two_steps(x, "conv14.2", 256, 2)))
    result: Outputs = ([], [], [])
    for values, (name, each) in zip(result, (("conf", 2), ("loc", 4), ("landm", 10)), strict=True):
        for level, anchors in enumerate((3, 2, 2)):
            values.append(two_steps(kept[level], f"{name}.{level}", anchors * each))
        values.append(w.conv(kept[3], f"{name}.3", 3 * each, 3, bias=True))
    return result


def receptive_field(w: Weights, x: Tensor, name: str, outputs: int) -> Tensor:
    def basic(x: Tensor, part: str, width: int, kernel: int, dilation: int = 1) -> Tensor:
        return w.unit(x, f"{name}.{part}.conv", f"{name}.{part}.bn", width, kernel, dilation=dilation)

    first = x.shape[1] // 8
    branches = []
    for branch, middle, dilation in ((0, (2 * first,), 2), (1, (2 * first,), 3), (2, (first // 2 * 3, 2 * first), 5)):
        y = basic(x, f"branch{branch}.0", first, 1)
        for index, width in enumerate(middle, start=1):
            y = relu(basic(y, f"branch{branch}.{index}", width, 3))
        branches.append(basic(y, f"branch{branch}.{len(middle) + 1}", 2 * first, 3, dilation))
    mixed = basic(torch.cat(branches, dim=1), "ConvLinear", outputs, 1)
    return relu(mixed * 1.0 + basic(x, "shortcut", outputs, 1))


@dataclass(frozen=True)
class Published:
    """One published network: its definition, what it must be recognised as, and the wrapping of its file."""

    define: Callable[[Weights, Tensor], Outputs]
    family: str
    backbone: str
    prefix: str = ""
    listed: str | None = None
    """Its name in `family_keys.json`."""
    anchors: tuple[tuple[int, ...], ...] | None = None
    """Where they are not the usual ones: nothing else tells this network from one of the same keys."""


def _mobile(style: str, base: int, channels: int) -> Callable[[Weights, Tensor], Outputs]:
    prefix, parts, names = ("body", BIUBUG6_PARTS, BIUBUG6) if style == "biubug6" else ("fx", YAKHYO_PARTS, YAKHYO)
    return lambda w, x: heads(w, neck(w, mobilenet_v1(w, x, prefix, parts, base), channels), names)


def _small(w: Weights, x: Tensor) -> Outputs:
    """The MobileNet of the one-megabyte nets: biubug6's with ReLU."""
    return heads(w, neck(w, mobilenet_v1(w, x, "body", BIUBUG6_PARTS, 8, relu), 64, relu), BIUBUG6)


def _res(style: str, depth: int, channels: int) -> Callable[[Weights, Tensor], Outputs]:
    prefix, names = ("body", BIUBUG6) if style == "biubug6" else ("fx", YAKHYO)
    return lambda w, x: heads(w, neck(w, resnet(w, x, prefix, *RESNETS[depth]), channels), names)


PUBLISHED = {
    "biubug6 mobilenet0.25": Published(_mobile("biubug6", 8, 64), "biubug6", "mobilenet_v1_0.25"),
    "biubug6 Resnet50": Published(_res("biubug6", 50, 256), "biubug6", "resnet50", "module.", "r50"),
    "facexlib mobilenet0.25": Published(_mobile("biubug6", 8, 64), "biubug6", "mobilenet_v1_0.25", "module."),
    "facexlib Resnet50": Published(_res("biubug6", 50, 256), "biubug6", "resnet50", "module.", "facexlib_r50"),
    "ternaus Resnet50": Published(_res("biubug6", 50, 256), "biubug6", "resnet50", "", "ternaus_r50"),
    "Open Model Zoo resnet50": Published(_res("biubug6", 50, 256), "biubug6", "resnet50", "module."),
    "bubbliiiing resnet50": Published(_res("biubug6", 50, 256), "biubug6", "resnet50"),
    "yakhyo mv1_0.25": Published(_mobile("yakhyo", 8, 64), "yakhyo", "mobilenet_v1_0.25"),
    "yakhyo mv1_0.50": Published(_mobile("yakhyo", 16, 128), "yakhyo", "mobilenet_v1_0.5", "", "mv1_0.50"),
    "yakhyo mv1": Published(_mobile("yakhyo", 32, 128), "yakhyo", "mobilenet_v1_1", "", "mv1"),
    "yakhyo mv2": Published(
        lambda w, x: heads(w, neck(w, mobilenet_v2(w, x, "fx"), 128), YAKHYO), "yakhyo", "mobilenet_v2", "", "mv2"
    ),
    "yakhyo r18": Published(_res("yakhyo", 18, 128), "yakhyo", "resnet18", "", "r18"),
    "yakhyo r34": Published(_res("yakhyo", 34, 128), "yakhyo", "resnet34", "", "r34"),
    "yakhyo r50": Published(_res("yakhyo", 50, 256), "yakhyo", "resnet50", "", "yakhyo_r50"),
    "Resnet101 under biubug6's names": Published(_res("biubug6", 101, 256), "biubug6", "resnet101"),
    "Resnet152 under biubug6's names": Published(_res("biubug6", 152, 256), "biubug6", "resnet152"),
    "one-megabyte mobilenet0.25": Published(
        _small, "biubug6", "mobilenet_v1_0.25", anchors=((10, 20), (32, 64), (128, 256))
    ),
    "one-megabyte slim": Published(lambda w, x: one_megabyte(w, x, False), "one-megabyte", "slim"),
    "one-megabyte RFB": Published(lambda w, x: one_megabyte(w, x, True), "one-megabyte", "rfb"),
}
