"""MobileNetV1 of any width, without its classifier (arXiv 1704.04861, table 1)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ..layers import Activation, ConvNorm
from .table import Stem, Table

# Channels at width 1 and stride of each block, in stages whose ends have strides 8, 16 and 32.
STAGES = (
    ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)),
    ((512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1)),
    ((1024, 2), (1024, 1)),
)
STEM = 32
NARROW, WIDE = 64, 128
"""Channels of the published pyramids: for width 0.25, and for every larger one."""


@dataclass(frozen=True)
class Separable:
    """A 3×3 depthwise and a 1×1 convolution."""

    outputs: int
    stride: int
    activation: Activation = Activation.LEAKY_RELU

    def module(self, inputs: int) -> SeparableBlock:
        """The block in PyTorch."""
        return SeparableBlock(inputs, self)


class SeparableBlock(nn.Module):
    """`Separable` in PyTorch."""

    def __init__(self, inputs: int, row: Separable) -> None:
        super().__init__()
        self.depthwise = ConvNorm(inputs, inputs, 3, row.stride, groups=inputs, activation=row.activation)
        self.pointwise = ConvNorm(inputs, row.outputs, 1, activation=row.activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))  # type: ignore[no-any-return]


def mobilenet_v1(width: float) -> Table:
    """The table at `width`, which multiplies every number of channels."""
    stages = tuple(tuple(Separable(round(full * width), stride) for full, stride in stage) for stage in STAGES)
    pyramid = NARROW if width <= 0.25 else WIDE
    stem = Stem(round(STEM * width))
    return Table(f"mobilenet_v1_{width:g}", f"MobileNetV1 x{width:g}", stem, stages, pyramid)
