"""RetinaFace with a MobileNetV1 backbone, in its training form (batch norm, two-class logits, mean-subtracted input).

Sources: RetinaFace (arXiv 1905.00641, section 3 and 4.2) for the detector, MobileNets (arXiv 1704.04861, table 1) for
the backbone, FPN (arXiv 1612.03144), SSH (arXiv 1708.03979, section 3.2) for the context modules.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.1
ANCHORS = 2
# MobileNets, table 1, up to the last stage used: channels at width 1 and stride of each depthwise-separable block,
# grouped into the three stages whose ends have strides 8, 16 and 32.
STAGES = (
    ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)),
    ((512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1)),
    ((1024, 2), (1024, 1)),
)


class Predictions(NamedTuple):
    """Raw predictions, one tensor a stride (8, 16, 32), NCHW, anchors along the channels.

    `scores` have 2 channels an anchor (background, face), `boxes` 4, `landmarks` 10.
    """

    scores: tuple[Tensor, ...]
    boxes: tuple[Tensor, ...]
    landmarks: tuple[Tensor, ...]


class ConvNorm(nn.Module):
    """Convolution, batch norm and LeakyReLU; a slope of 0 is ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, slope: float = SLOPE
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return activate(self.norm(self.conv(x)), self.slope)


class SeparableBlock(nn.Module):
    """A 3×3 depthwise and a 1×1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = ConvNorm(inputs, inputs, 3, stride, groups=inputs)
        self.pointwise = ConvNorm(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))  # type: ignore[no-any-return]


class Backbone(nn.Module):
    """MobileNetV1 without its classifier; gives the features at strides 8, 16 and 32."""

    def __init__(self, width: float) -> None:
        super().__init__()
        channels = round(32 * width)
        self.stem = ConvNorm(3, channels, 3, stride=2)
        stages = []
        for stage in STAGES:
            blocks = []
            for full, stride in stage:
                outputs = round(full * width)
                blocks.append(SeparableBlock(channels, outputs, stride))
                channels = outputs
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class Pyramid(nn.Module):
    """FPN: 1×1 lateral convolutions, nearest-neighbour upsampling, and a 3×3 convolution after each sum."""

    def __init__(self, inputs: list[int], channels: int, slope: float) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(ConvNorm(n, channels, 1, slope=slope) for n in inputs)
        self.merge = nn.ModuleList(ConvNorm(channels, channels, 3, slope=slope) for _ in inputs[1:])

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        levels = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        for index in reversed(range(len(levels) - 1)):
            above = functional.interpolate(levels[index + 1], scale_factor=2.0, mode="nearest")
            levels[index] = self.merge[index](levels[index] + above)
        return levels


class Context(nn.Module):
    """SSH context module: receptive fields of 3×3, 5×5 and 7×7 by stacked 3×3 convolutions, concatenated.

    The paper applies ReLU to the concatenation; applied to its parts it gives the same and fuses into convolutions.
    """

    def __init__(self, channels: int, slope: float) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.conv3 = ConvNorm(channels, half, 3, slope=0.0)
        self.conv5_1 = ConvNorm(channels, quarter, 3, slope=slope)
        self.conv5_2 = ConvNorm(quarter, quarter, 3, slope=0.0)
        self.conv7_2 = ConvNorm(quarter, quarter, 3, slope=slope)
        self.conv7_3 = ConvNorm(quarter, quarter, 3, slope=0.0)

    def forward(self, x: Tensor) -> Tensor:
        shared = self.conv5_1(x)
        return torch.cat([self.conv3(x), self.conv5_2(shared), self.conv7_3(self.conv7_2(shared))], dim=1)


class RetinaFace(nn.Module):
    """The detector. Input: float32 NCHW, BGR, the mean colour already subtracted. Output: `Predictions`.

    `width` multiplies the backbone's channels (0.25 in the checkpoints in use), `channels` is the pyramid's. With more
    than 64 of them the pyramid and the context modules use ReLU, as the published training code does.
    """

    def __init__(self, width: float = 0.25, channels: int = 64) -> None:
        super().__init__()
        self.width, self.channels = width, channels
        slope = SLOPE if channels <= 64 else 0.0
        self.backbone = Backbone(width)
        self.pyramid = Pyramid([round(stage[-1][0] * width) for stage in STAGES], channels, slope)
        self.context = nn.ModuleList(Context(channels, slope) for _ in STAGES)
        self.score = nn.ModuleList(nn.Conv2d(channels, 2 * ANCHORS, 1) for _ in STAGES)
        self.box = nn.ModuleList(nn.Conv2d(channels, 4 * ANCHORS, 1) for _ in STAGES)
        self.landmark = nn.ModuleList(nn.Conv2d(channels, 10 * ANCHORS, 1) for _ in STAGES)

    def features(self, x: Tensor) -> list[Tensor]:
        """The context modules' outputs at strides 8, 16 and 32, which all heads read."""
        levels = self.pyramid(self.backbone(x))
        return [context(level) for context, level in zip(self.context, levels, strict=True)]

    def forward(self, x: Tensor) -> Predictions:
        return self.predict(self.features(x))

    def predict(self, levels: list[Tensor]) -> Predictions:
        """What the heads make of `features`."""
        heads = (self.score, self.box, self.landmark)
        return Predictions(*(tuple(conv(x) for conv, x in zip(head, levels, strict=True)) for head in heads))


def activate(x: Tensor, slope: float) -> Tensor:
    """LeakyReLU of that slope; ReLU for 0."""
    return functional.leaky_relu(x, slope) if slope else functional.relu(x)
