"""ResNet-18, 34, 50, 101 and 152, without their classifier (arXiv 1512.03385, table 1).

The stride of a bottleneck lies on its 3×3 convolution, as in the published weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..layers import Activation, ConvNorm, Residual
from .table import Stem, Table

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Depth: blocks of each stage."""
BOTTLENECKS_FROM = 50
EXPANSION = 4
WIDTHS = (64, 128, 256, 512)
STEM = Stem(64, 7, Activation.RELU, pool=True)
PYRAMID_OF_BASIC, PYRAMID_OF_BOTTLENECKS = 128, 256


@dataclass(frozen=True)
class BasicBlock:
    """Two 3×3 convolutions and the shortcut."""

    outputs: int
    stride: int

    def module(self, inputs: int) -> Residual:
        """The block in PyTorch."""
        chain = nn.Sequential(
            ConvNorm(inputs, self.outputs, 3, self.stride, activation=Activation.RELU),
            ConvNorm(self.outputs, self.outputs, 3, activation=Activation.NONE),
        )
        return Residual(chain, _shortcut(inputs, self.outputs, self.stride), Activation.RELU)


@dataclass(frozen=True)
class Bottleneck:
    """1×1, 3×3 and 1×1 convolutions and the shortcut."""

    outputs: int
    stride: int

    def module(self, inputs: int) -> Residual:
        """The block in PyTorch."""
        width = self.outputs // EXPANSION
        chain = nn.Sequential(
            ConvNorm(inputs, width, 1, activation=Activation.RELU),
            ConvNorm(width, width, 3, self.stride, activation=Activation.RELU),
            ConvNorm(width, self.outputs, 1, activation=Activation.NONE),
        )
        return Residual(chain, _shortcut(inputs, self.outputs, self.stride), Activation.RELU)


def resnet(depth: int) -> Table:
    """The table of that depth, one of `BLOCKS`."""
    deep = depth >= BOTTLENECKS_FROM
    stages = []
    for stage, (width, count) in enumerate(zip(WIDTHS, BLOCKS[depth], strict=True)):
        strides = [2 if stage and not index else 1 for index in range(count)]
        rows = [Bottleneck(width * EXPANSION, s) if deep else BasicBlock(width, s) for s in strides]
        stages.append(tuple(rows))
    pyramid = PYRAMID_OF_BOTTLENECKS if deep else PYRAMID_OF_BASIC
    return Table(f"resnet{depth}", f"ResNet-{depth}", STEM, tuple(stages), pyramid)


def _shortcut(inputs: int, outputs: int, stride: int) -> ConvNorm | None:
    if inputs == outputs and stride == 1:
        return None
    return ConvNorm(inputs, outputs, 1, stride, activation=Activation.NONE)
