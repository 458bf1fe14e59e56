"""What lies between backbone and heads: the feature pyramid and the context modules.

Sources: FPN (arXiv 1612.03144); RetinaFace (arXiv 1905.00641, section 4.2) for the levels P2 to P6; SSH (arXiv
1708.03979, section 3.2) for the context modules.
"""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import Activation, ConvNorm


class Upsampling(Enum):
    """How a pyramid doubles the size of a level; the published code takes the nearest pixel."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    """Between pixels, with the corners of both sizes aligned."""


class Pyramid(nn.Module):
    """1×1 lateral convolutions, upsampling, and a 3×3 convolution after each sum.

    With `extra`, one more level comes from the deepest features by a 3×3 convolution of stride 2 (P6 in the paper); it
    takes no part in the sums.
    """

    def __init__(
        self, inputs: list[int], channels: int, activation: Activation, extra: bool, upsampling: Upsampling
    ) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.lateral = nn.ModuleList(ConvNorm(n, channels, 1, activation=activation) for n in inputs)
        self.merge = nn.ModuleList(ConvNorm(channels, channels, 3, activation=activation) for _ in inputs[1:])
        self.extra = ConvNorm(inputs[-1], channels, 3, 2, activation=activation) if extra else None

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        levels = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        for index in reversed(range(len(levels) - 1)):
            levels[index] = self.merge[index](levels[index] + self._upsampled(levels[index + 1]))
        return levels if self.extra is None else [*levels, self.extra(features[-1])]

    def _upsampled(self, level: Tensor) -> Tensor:
        if self.upsampling is Upsampling.NEAREST:
            return functional.interpolate(level, scale_factor=2.0, mode="nearest")
        return functional.interpolate(level, scale_factor=2.0, mode="bilinear", align_corners=True)


class Context(nn.Module):
    """SSH context module: receptive fields of 3×3, 5×5 and 7×7 by stacked 3×3 convolutions, concatenated.

    The paper applies ReLU to the concatenation; applied to its parts it gives the same and fuses into convolutions.
    """

    def __init__(self, channels: int, activation: Activation) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.conv3 = ConvNorm(channels, half, 3, activation=Activation.RELU)
        self.conv5_1 = ConvNorm(channels, quarter, 3, activation=activation)
        self.conv5_2 = ConvNorm(quarter, quarter, 3, activation=Activation.RELU)
        self.conv7_2 = ConvNorm(quarter, quarter, 3, activation=activation)
        self.conv7_3 = ConvNorm(quarter, quarter, 3, activation=Activation.RELU)

    def forward(self, x: Tensor) -> Tensor:
        shared = self.conv5_1(x)
        return torch.cat([self.conv3(x), self.conv5_2(shared), self.conv7_3(self.conv7_2(shared))], dim=1)
