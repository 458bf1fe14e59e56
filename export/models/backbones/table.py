"""A backbone as data: a table of blocks, and the module that is built from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional

from ..layers import Activation, ConvNorm


class Block(Protocol):
    """One row of the table."""

    @property
    def outputs(self) -> int:
        """Channels that it gives."""
        ...

    @property
    def stride(self) -> int:
        """1, or 2 where it halves the size."""
        ...

    def module(self, inputs: int) -> nn.Module:
        """The block in PyTorch, for `inputs` channels."""
        ...


@dataclass(frozen=True)
class Stem:
    """The first convolution, of stride 2; with `pool`, a 3×3 max pooling of stride 2 follows."""

    outputs: int
    kernel: int = 3
    activation: Activation = Activation.LEAKY_RELU
    pool: bool = False


@dataclass(frozen=True)
class Table:
    """A backbone: its stem and its blocks, grouped into stages.

    `name` is what the command line takes, `title` what people read. `pyramid` is the number of channels that published
    detectors give its pyramid; None where heads read the backbone itself.
    """

    name: str
    title: str
    stem: Stem
    stages: tuple[tuple[Block, ...], ...]
    pyramid: int | None

    @cached_property
    def levels(self) -> dict[int, tuple[int, int, int]]:
        """Where each stride's features are: stride to (stage, block, channels) of the last block that has it."""
        found: dict[int, tuple[int, int, int]] = {}
        stride = 4 if self.stem.pool else 2
        for stage, blocks in enumerate(self.stages):
            for index, block in enumerate(blocks):
                stride *= block.stride
                found[stride] = (stage, index, block.outputs)
        return found

    def channels(self, stride: int) -> int:
        """Channels of the features at `stride`."""
        return self.levels[stride][2]

    def rows(self) -> Iterator[tuple[int, int, int, Block]]:
        """Every block as (stage, index in the stage, channels that it reads, block)."""
        inputs = self.stem.outputs
        for stage, blocks in enumerate(self.stages):
            for index, block in enumerate(blocks):
                yield stage, index, inputs, block
                inputs = block.outputs


class Backbone(nn.Module):
    """A classifier without its head: image (n, 3, H, W) to the features at some strides."""

    def __init__(self, table: Table, strides: tuple[int, ...]) -> None:
        super().__init__()
        stem = table.stem
        self.pool = stem.pool
        self.taps = frozenset(table.levels[stride][:2] for stride in strides)
        self.stem = ConvNorm(3, stem.outputs, stem.kernel, stride=2, activation=stem.activation)
        last = max(self.taps)
        stages: list[list[nn.Module]] = [[] for _ in range(last[0] + 1)]
        for stage, index, inputs, block in table.rows():
            if (stage, index) <= last:
                stages[stage].append(block.module(inputs))
        self.stages = nn.ModuleList(nn.Sequential(*blocks) for blocks in stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        if self.pool:
            x = functional.max_pool2d(x, 3, 2, 1)
        features = []
        for stage, blocks in enumerate(self.stages):
            assert isinstance(blocks, nn.Sequential)
            for index, block in enumerate(blocks):
                x = block(x)
                if (stage, index) in self.taps:
                    features.append(x)
        return features
