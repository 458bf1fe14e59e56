"""Layers that every network here is made of: convolutions with a norm or a bias, their activation, residual sums."""

from __future__ import annotations

from enum import Enum

from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.1
"""Of every LeakyReLU in the published networks."""


class Activation(Enum):
    """What follows a convolution or a sum."""

    NONE = "none"
    RELU = "relu"
    RELU6 = "relu6"
    LEAKY_RELU = "leaky-relu"


def activate(x: Tensor, activation: Activation) -> Tensor:
    """Apply it; LeakyReLU has slope `SLOPE`."""
    if activation is Activation.LEAKY_RELU:
        return functional.leaky_relu(x, SLOPE)
    if activation is Activation.RELU:
        return functional.relu(x)
    return x.clamp(0.0, 6.0) if activation is Activation.RELU6 else x


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm and activation. Padding keeps the size at stride 1."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        groups: int = 1,
        dilation: int = 1,
        activation: Activation = Activation.LEAKY_RELU,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return activate(self.norm(self.conv(x)), self.activation)


class Convolution(nn.Module):
    """A biased convolution with its activation."""

    def __init__(self, conv: nn.Conv2d, activation: Activation) -> None:
        super().__init__()
        self.conv = conv
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return activate(self.conv(x), self.activation)


class Residual(nn.Module):
    """The sum of a chain of layers and a shortcut, and an activation after the sum (arXiv 1512.03385, section 3.2).

    Without `shortcut` the input itself is added.
    """

    def __init__(self, chain: nn.Module, shortcut: nn.Module | None, activation: Activation) -> None:
        super().__init__()
        self.chain = chain
        self.shortcut = shortcut
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return activate(self.chain(x) + (x if self.shortcut is None else self.shortcut(x)), self.activation)
