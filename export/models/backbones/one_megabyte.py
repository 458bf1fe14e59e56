"""Slim and RFB, the one-megabyte nets: separable convolutions to stride 64, whose features the heads read directly.

RFB has one block of dilated branches at stride 8 (receptive field block, arXiv 1711.07767, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..layers import Activation, ConvNorm, Convolution, activate
from .mobilenet_v1 import Separable
from .table import Block, Stem, Table

REDUCTION = 8
"""A branch begins with an eighth of the block's channels."""


@dataclass(frozen=True)
class DilatedBranches:
    """Three branches of convolutions with dilations 2, 3 and 5, mixed by a 1×1 convolution and added to a shortcut."""

    outputs: int
    stride: int = 1

    def module(self, inputs: int) -> DilatedBlock:
        """The block in PyTorch."""
        return DilatedBlock(inputs, self.outputs)


class DilatedBlock(nn.Module):
    """`DilatedBranches` in PyTorch."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        first = inputs // REDUCTION
        self.branches = nn.ModuleList(
            (
                _branch(inputs, (first, 2 * first), 2),
                _branch(inputs, (first, 2 * first), 3),
                _branch(inputs, (first, first // 2 * 3, 2 * first), 5),
            )
        )
        self.merge = ConvNorm(6 * first, outputs, 1, activation=Activation.NONE)
        self.shortcut = ConvNorm(inputs, outputs, 1, activation=Activation.NONE)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.merge(torch.cat([branch(x) for branch in self.branches], dim=1))
        return activate(mixed + self.shortcut(x), Activation.RELU)


@dataclass(frozen=True)
class Reduction:
    """1×1 reduction, 3×3 depthwise of stride 2, 1×1 expansion: biased convolutions, each with ReLU."""

    hidden: int
    outputs: int
    stride: int = 2

    def module(self, inputs: int) -> nn.Module:
        """The block in PyTorch."""
        convolutions = (
            nn.Conv2d(inputs, self.hidden, 1),
            nn.Conv2d(self.hidden, self.hidden, 3, self.stride, 1, groups=self.hidden),
            nn.Conv2d(self.hidden, self.outputs, 1),
        )
        return nn.Sequential(*(Convolution(conv, Activation.RELU) for conv in convolutions))


def slim() -> Table:
    """The net of separable convolutions alone."""
    return _table("slim", "Slim", Separable(64, 1, Activation.RELU))


def rfb() -> Table:
    """The same with dilated branches at stride 8."""
    return _table("rfb", "RFB", DilatedBranches(64))


def _table(name: str, title: str, eighth: Block) -> Table:
    def rows(*pairs: tuple[int, int]) -> tuple[Block, ...]:
        return tuple(Separable(outputs, stride, Activation.RELU) for outputs, stride in pairs)

    stages = (
        (*rows((32, 1), (32, 2), (32, 1), (64, 2), (64, 1), (64, 1)), eighth),
        rows((128, 2), (128, 1), (128, 1)),
        rows((256, 2), (256, 1)),
        (Reduction(64, 256),),
    )
    return Table(name, title, Stem(16, activation=Activation.RELU), stages, None)


def _branch(inputs: int, widths: tuple[int, ...], dilation: int) -> nn.Sequential:
    """A linear 1×1, 3×3 convolutions with ReLU, and a linear dilated 3×3 one."""
    first, *middle = widths
    layers = [ConvNorm(inputs, first, 1, activation=Activation.NONE)]
    for before, width in zip(widths, middle, strict=False):
        layers.append(ConvNorm(before, width, 3, activation=Activation.RELU))
    last = widths[-1]
    layers.append(ConvNorm(last, last, 3, dilation=dilation, activation=Activation.NONE))
    return nn.Sequential(*layers)
