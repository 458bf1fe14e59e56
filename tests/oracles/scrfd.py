"""SCRFD (arXiv 2105.04714) by its published configurations, in PyTorch, with random weights.

The sizes are those of the paper's table and of the authors' configuration files: MobileNetV1 blocks for 500M and 1G,
basic residual blocks with an average pool in the shortcut (ResNetV1e) for the others; PAFPN; a head of stacked
convolutions, its own per stride or shared by all, with batch or group norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDES = (8, 16, 32)
ANCHORS = 2


@dataclass(frozen=True)
class Size:
    """One published size: blocks and channels of the four stages, and the head."""

    blocks: tuple[int, int, int, int]
    planes: tuple[int, ...]
    neck: int
    feat: int
    stacked: int
    mobile: bool = False
    groups: int = 0
    """Group norm in the head instead of batch norm."""
    shared: bool = False
    """One head for all strides, with a learnt scale for each."""
    landmarks: bool = True


SIZES = {
    "500M": Size((2, 3, 2, 6), (16, 16, 40, 72, 152, 288), 16, 64, 2, mobile=True),
    "1G": Size((4, 6, 2, 3), (16, 16, 40, 72, 152, 288), 24, 64, 2, mobile=True),
    "2.5G": Size((3, 5, 3, 2), (24, 48, 48, 80), 24, 64, 2),
    "10G": Size((3, 4, 2, 3), (56, 88, 88, 224), 56, 80, 3, groups=16, shared=True),
    "34G": Size((17, 16, 2, 8), (56, 56, 144, 184), 128, 256, 2, groups=32, shared=True, landmarks=False),
}


def small(size: Size) -> Size:
    """One of the sizes with one block per stage and a quarter of the channels: the same graph with fewer layers."""
    planes = tuple(max(plane // 4 // 8 * 8, 8) for plane in size.planes)
    groups = 4 if size.groups else 0
    return Size((1, 1, 1, 1), planes, 16, 32, size.stacked, size.mobile, groups, size.shared, size.landmarks)


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, norm: int = 0) -> nn.Sequential:
    normed: nn.Module = nn.GroupNorm(norm, outputs) if norm else nn.BatchNorm2d(outputs)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), normed, nn.ReLU()
    )


def separable(inputs: int, outputs: int, stride: int = 1, norm: int = 0) -> nn.Sequential:
    return nn.Sequential(
        conv_norm(inputs, inputs, 3, stride, inputs, norm if inputs % max(norm, 1) == 0 else 1),
        conv_norm(inputs, outputs, 1, norm=norm),
    )


class Residual(nn.Module):
    """Two 3×3 convolutions; the shortcut of a strided block is an average pool and a 1×1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_norm(inputs, outputs, 3, stride), *list(conv_norm(outputs, outputs, 3))[:2])
        pool = [nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)] if stride > 1 else []
        plain = stride == 1 and inputs == outputs
        shortcut = [] if plain else [*pool, *list(conv_norm(inputs, outputs, 1))[:2]]
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class Backbone(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        if size.mobile:
            first, second = size.planes[:2]
            widths = size.planes[2:]
            self.stem = nn.Sequential(conv_norm(3, first, 3, 2), separable(first, second))
            previous, strides = second, (2, 2, 2, 2)
        else:
            widths, first = size.planes, size.planes[0]
            half = max(first // 2, 8)
            stem = (conv_norm(3, half, 3, 2), conv_norm(half, half, 3), conv_norm(half, first, 3))
            self.stem = nn.Sequential(*stem, nn.MaxPool2d(2, 2))
            previous, strides = first, (1, 2, 2, 2)
        self.stages = nn.ModuleList()
        for blocks, width, stride in zip(size.blocks, widths, strides, strict=True):
            layers = []
            for index in range(blocks):
                step = stride if index == 0 else 1
                layers.append(separable(previous, width, step) if size.mobile else Residual(previous, width, step))
                previous = width
            self.stages.append(nn.Sequential(*layers))
        self.widths = tuple(widths[1:])

    def forward(self, x: Tensor) -> list[Tensor]:
        x, levels = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels[1:]


class Neck(nn.Module):
    """PAFPN: top down by nearest upsampling, then bottom up by strided convolutions."""

    def __init__(self, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, outputs, 1) for width in widths)
        self.smooth = nn.ModuleList(nn.Conv2d(outputs, outputs, 3, padding=1) for _ in widths)
        self.down = nn.ModuleList(nn.Conv2d(outputs, outputs, 3, 2, 1) for _ in widths[1:])
        self.after = nn.ModuleList(nn.Conv2d(outputs, outputs, 3, padding=1) for _ in widths[1:])

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        x = [lateral(level) for lateral, level in zip(self.lateral, levels, strict=True)]
        for index in (1, 0):
            x[index] = x[index] + functional.interpolate(x[index + 1], x[index].shape[2:], mode="nearest")
        x = [smooth(level) for smooth, level in zip(self.smooth, x, strict=True)]
        for index in (0, 1):
            x[index + 1] = x[index + 1] + self.down[index](x[index])
        return [x[0], self.after[0](x[1]), self.after[1](x[2])]


class Tower(nn.Module):
    """The stacked convolutions and last layers of one stride, or of all."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        layers = []
        for index in range(size.stacked):
            inputs = size.neck if index == 0 else size.feat
            layers.append(
                separable(inputs, size.feat, norm=size.groups)
                if size.mobile
                else conv_norm(inputs, size.feat, 3, norm=size.groups)
            )
        self.stack = nn.Sequential(*layers)
        self.score = nn.Conv2d(size.feat, ANCHORS, 3, padding=1)
        self.box = nn.Conv2d(size.feat, 4 * ANCHORS, 3, padding=1)
        self.landmark = nn.Conv2d(size.feat, 10 * ANCHORS, 3, padding=1) if size.landmarks else None


class Scrfd(nn.Module):
    """Outputs as InsightFace's exports have them: scores after a sigmoid, boxes, key points; (N, values) per stride."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.backbone = Backbone(size)
        self.neck = Neck(self.backbone.widths, size.neck)
        self.tower_list = [Tower(size) for _ in range(1 if size.shared else len(STRIDES))]
        self.towers = nn.ModuleList(self.tower_list)
        self.scales = nn.Parameter(torch.ones(len(STRIDES)))
        self.landmarks = size.landmarks

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        scores, boxes, points = [], [], []
        for index, level in enumerate(self.neck(self.backbone(image))):
            tower = self.tower_list[index % len(self.tower_list)]
            x = tower.stack(level)
            scores.append(tower.score(x).permute(0, 2, 3, 1).reshape(-1, 1).sigmoid())
            boxes.append((tower.box(x) * self.scales[index]).permute(0, 2, 3, 1).reshape(-1, 4))
            if tower.landmark is not None:
                points.append(tower.landmark(x).permute(0, 2, 3, 1).reshape(-1, 10))
        return (*scores, *boxes, *points)


def trained_like(size: Size, seed: int = 0) -> Scrfd:
    """Random weights with norm statistics as a trained network has them."""
    torch.manual_seed(seed)
    model = Scrfd(size).eval()
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(std=0.1)
    with torch.no_grad():
        model.scales.uniform_(0.8, 1.2)
    return model


def export(model: Scrfd, path: Path, dynamic: bool, size: tuple[int, int] = (128, 160)) -> Path:
    """An ONNX file as users have it, for a fixed input or one of any size."""
    names = ["score", "bbox", "kps"][: 3 if model.landmarks else 2]
    outputs = [f"{name}_{stride}" for name in names for stride in STRIDES]
    axes = {"input.1": {2: "height", 3: "width"}} if dynamic else None
    image = torch.zeros(1, 3, *size)
    torch.onnx.export(
        model, (image,), str(path), input_names=["input.1"], output_names=outputs, dynamic_axes=axes, dynamo=False
    )
    return path
