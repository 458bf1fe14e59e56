"""MobileNetV2, without its classifier (arXiv 1801.04381, table 2)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ..layers import Activation, ConvNorm, Residual
from .table import Block, Stem, Table

# Expansion, channels, repetitions, stride of the first one: a row of table 2 each.
ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
ENDS = (6, 13)
"""Blocks before which strides 8 and 16 end, and with them a stage."""
LAST = 1280
PYRAMID = 128


@dataclass(frozen=True)
class InvertedResidual:
    """1×1 expansion, 3×3 depthwise, 1×1 linear projection; its input is added where shapes allow."""

    outputs: int
    stride: int
    expansion: int

    def module(self, inputs: int) -> nn.Module:
        """The block in PyTorch: a `Residual` or, without a sum, its chain under the same names."""
        hidden = inputs * self.expansion
        expand = [ConvNorm(inputs, hidden, 1, activation=Activation.RELU6)] if self.expansion > 1 else []
        chain = nn.Sequential(
            *expand,
            ConvNorm(hidden, hidden, 3, self.stride, groups=hidden, activation=Activation.RELU6),
            ConvNorm(hidden, self.outputs, 1, activation=Activation.NONE),
        )
        if self.stride == 1 and inputs == self.outputs:
            return Residual(chain, None, Activation.NONE)
        return Chain(chain)


class Chain(nn.Module):
    """An inverted residual without the sum."""

    def __init__(self, chain: nn.Module) -> None:
        super().__init__()
        self.chain = chain

    def forward(self, x: Tensor) -> Tensor:
        return self.chain(x)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Pointwise:
    """The last 1×1 convolution."""

    outputs: int
    stride: int = 1

    def module(self, inputs: int) -> ConvNorm:
        """The block in PyTorch."""
        return ConvNorm(inputs, self.outputs, 1, activation=Activation.RELU6)


def mobilenet_v2() -> Table:
    """The table at width 1."""
    blocks: list[Block] = []
    for expansion, outputs, repeat, stride in ROWS:
        blocks += [InvertedResidual(outputs, stride if index == 0 else 1, expansion) for index in range(repeat)]
    blocks.append(Pointwise(LAST))
    stages = (tuple(blocks[: ENDS[0]]), tuple(blocks[ENDS[0] : ENDS[1]]), tuple(blocks[ENDS[1] :]))
    return Table("mobilenet_v2", "MobileNetV2", Stem(32, activation=Activation.RELU6), stages, PYRAMID)
