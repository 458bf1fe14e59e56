"""A small residual detector, untrained, with what networks of the ResNet kind have and the demo has not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from retinaface_edge.runtime.spec import Spec


class Block(nn.Module):
    """Two convolutions and a shortcut, averaged and projected where the shape changes, as ResNet-D has it."""

    def __init__(self, inputs: int, outputs: int, stride: int, bounded: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if stride > 1 or inputs != outputs else None
        self.stride, self.act = stride, nn.ReLU6() if bounded else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        short = x if self.stride == 1 else nn.functional.avg_pool2d(x, self.stride, self.stride)
        if self.shortcut is not None:
            short = self.shortcut(short)
        total: Tensor = self.act(self.conv2(self.act(self.conv1(x))) + short)
        return total


class Inverted(nn.Module):
    """MobileNetV2's block: ReLU6 inside, and a sum of two values that no activation follows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, 2 * channels, 1)
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, 1, 1, groups=2 * channels)
        self.project = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        inside = nn.functional.relu6(self.depthwise(nn.functional.relu6(self.expand(x))))
        projected: Tensor = self.project(inside)
        return x + projected


class ResidualDetector(nn.Module):
    """uint8 NHWC image in, the raw heads of `spec` out; the pixels are normalised as (RGB − mean)/std.

    A 7×7 stem and a pooling, residual blocks at strides 4 to 32, a top-down sum, and heads.
    """

    mean: Tensor
    std: Tensor
    stages: Any
    lateral: Any
    heads: Any

    def __init__(
        self,
        spec: Spec,
        mean: tuple[float, ...] = (123.675, 116.28, 103.53),
        std: tuple[float, ...] = (58.395, 57.12, 57.375),
        rgb: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.rgb = rgb
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        self.stem = nn.Conv2d(3, 12, 7, 2, 3, bias=False)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.stages = nn.ModuleList(
            [
                nn.Sequential(Block(12, 12, 1), Block(12, 16, 2)),
                nn.Sequential(Block(16, 20, 2), Block(20, 20, 1, bounded=True), Inverted(20)),
                nn.Sequential(Block(20, 24, 2), Block(24, 24, 1)),
            ]
        )
        self.lateral = nn.ModuleList(nn.Conv2d(channels, 16, 1) for channels in (16, 20, 24))
        anchors = len(spec.anchor_sizes[0])
        self.heads = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(16, head.channels * anchors, 1) for _ in range(3)) for head in spec.heads
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = image.to(torch.float32)
        if self.rgb:
            x = x.flip(3)
        x = ((x - self.mean) / self.std).permute(0, 3, 1, 2)
        x = self.pool(torch.relu(self.stem(x)))
        levels = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            levels.append(torch.relu(lateral(x)))
        for finer in (1, 0):
            levels[finer] = levels[finer] + nn.functional.interpolate(levels[finer + 1], scale_factor=2.0)
        return tuple(head(x).permute(0, 2, 3, 1) for heads in self.heads for head, x in zip(heads, levels, strict=True))
