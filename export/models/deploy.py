"""The deploy form: what the training form computes, with batch norm, two-class softmax and mean subtraction folded.

It follows the bundle's contract: uint8 NHWC BGR in, raw NHWC tensors out, one logit an anchor. The softmax of two
logits equals the sigmoid of their difference, so the difference is taken once, in the weights.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from retinaface_edge.runtime.spec import Spec

from .retinaface import ANCHORS, ConvNorm, RetinaFace, activate


class Convolution(nn.Module):
    """A biased convolution with its activation."""

    def __init__(self, conv: nn.Conv2d, slope: float) -> None:
        super().__init__()
        self.conv = conv
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return activate(self.conv(x), self.slope)


class Deploy(nn.Module):
    """Input `image` uint8 (1, H, W, 3); output the tensors of `spec.outputs`, in order, and of `spec.features`."""

    mean: Tensor

    def __init__(self, model: RetinaFace, spec: Spec) -> None:
        super().__init__()
        self.network = fold(model)
        self.with_features = spec.mesh is not None
        self.register_buffer("mean", torch.tensor(spec.mean, dtype=torch.float32))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        centred = image.to(torch.float32) - self.mean
        levels = self.network.features(centred.permute(0, 3, 1, 2))
        heads = (*self.network.predict(levels), *((levels,) if self.with_features else ()))
        return tuple(level.permute(0, 2, 3, 1) for head in heads for level in head)


def fold(model: RetinaFace) -> RetinaFace:
    """A copy of `model`, in evaluation mode, without batch norm and with one logit an anchor."""
    folded = copy.deepcopy(model).eval()
    for module in list(folded.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, ConvNorm):
                setattr(module, name, Convolution(_fold_norm(child), child.slope))
    folded.score = nn.ModuleList(_fold_softmax(conv) for conv in folded.score if isinstance(conv, nn.Conv2d))
    return folded.requires_grad_(False)


def _fold_norm(block: ConvNorm) -> nn.Conv2d:
    """w' = w·γ/√(σ² + ε), b' = β − μ·γ/√(σ² + ε), computed in float64."""
    conv, norm = block.conv, block.norm
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    folded = _like(conv, conv.out_channels)
    folded.weight.data = (conv.weight.double() * gain[:, None, None, None]).float()
    assert folded.bias is not None
    folded.bias.data = (norm.bias.double() - norm.running_mean.double() * gain).float()
    return folded


def _fold_softmax(conv: nn.Conv2d) -> nn.Conv2d:
    """From channels (background, face) an anchor to one channel, face − background."""
    folded = _like(conv, ANCHORS)
    assert conv.bias is not None and folded.bias is not None
    folded.weight.data = conv.weight.data[1::2] - conv.weight.data[::2]
    folded.bias.data = conv.bias.data[1::2] - conv.bias.data[::2]
    return folded


def _like(conv: nn.Conv2d, outputs: int) -> nn.Conv2d:
    kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
    return nn.Conv2d(conv.in_channels, outputs, kernel, stride, int(padding), groups=conv.groups, bias=True)
