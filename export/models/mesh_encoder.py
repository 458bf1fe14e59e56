"""The dense branch's encoder: from the description of a face to its latent code."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from .layers import Activation, activate

WIDTHS = (240, 128)
LEAST_DEVIATION = 1e-3


class Encoder(nn.Module):
    """Description (n, inputs), standardised, to a latent code (n, latent)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, inputs: int, latent: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        sizes = (inputs, *WIDTHS, latent)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, described: Tensor) -> Tensor:
        x = (described - self.mean) / self.deviation
        for layer in self.layers:
            x = activate(layer(x), Activation.LEAKY_RELU)
        return x


def encoder_convolutions(encoder: Encoder) -> nn.ModuleList:
    """The encoder's layers as 1×1 convolutions, standardisation folded into the first."""
    first, *rest = (convolution(layer) for layer in encoder.layers)
    assert first.bias is not None
    weight = first.weight.data[:, :, 0, 0].double() / encoder.deviation.double()
    first.bias.data = (first.bias.data.double() - weight @ encoder.mean.double()).float()
    first.weight.data = weight.float()[:, :, None, None]
    return nn.ModuleList([first, *rest])


def convolution(layer: nn.Module) -> nn.Conv2d:
    """A linear layer as a 1×1 convolution."""
    assert isinstance(layer, nn.Linear)
    conv = nn.Conv2d(layer.in_features, layer.out_features, 1)
    conv.weight.data = layer.weight.detach()[:, :, None, None].clone()
    assert conv.bias is not None
    conv.bias.data = layer.bias.detach().clone()
    return conv
