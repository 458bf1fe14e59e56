"""The deploy form: what the training form computes, with batch norm, two-class softmax and normalisation folded.

It follows the bundle's contract: uint8 NHWC BGR in, raw NHWC tensors out, one logit per anchor. The softmax of two
logits equals the sigmoid of their difference, so the difference is taken once, in the weights. Deviation and colour
order go into the first convolution's weights; the mean is subtracted from the picture, so that padding stays zero.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from retinaface_edge.runtime.spec import BoxCoding, Colour, ScoreCoding, Spec

from .backbones import BackboneError
from .layers import ConvNorm, Convolution
from .retinaface import RetinaFace, SeparableHead


class Deploy(nn.Module):
    """Input `image` uint8 (1, H, W, 3); output the tensors of `spec.outputs`, in order, and of `spec.features`.

    Raises `BackboneError` when the spec is of another detector: other strides, anchors or landmarks.
    """

    mean: Tensor

    def __init__(self, model: RetinaFace, spec: Spec) -> None:
        super().__init__()
        _check(model, spec)
        self.network = fold(model)
        self.with_features = spec.mesh is not None
        mean = torch.tensor(spec.mean, dtype=torch.float32)
        if spec.colour is Colour.RGB:
            mean = mean.flip(0)
        self.register_buffer("mean", mean)
        _fold_input(self.network, spec)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        centred = image.to(torch.float32) - self.mean
        levels = self.network.features(centred.permute(0, 3, 1, 2))
        heads = (*self.network.predict(levels), *((levels,) if self.with_features else ()))
        return tuple(level.permute(0, 2, 3, 1) for head in heads for level in head)


def fold(model: RetinaFace) -> RetinaFace:
    """A copy of `model`, in evaluation mode, without batch norm and with one logit per anchor."""
    folded = copy.deepcopy(model).eval()
    for module in list(folded.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, ConvNorm):
                setattr(module, name, Convolution(_fold_norm(child), child.activation))
    for index, head in enumerate(folded.score):
        if isinstance(head, SeparableHead):
            head.pointwise = _fold_softmax(head.pointwise)
        else:
            assert isinstance(head, nn.Conv2d)
            folded.score[index] = _fold_softmax(head)
    return folded.requires_grad_(False)


def _fold_input(network: RetinaFace, spec: Spec) -> None:
    """Deviation and colour order into the first convolution, which then reads BGR pixels less the mean."""
    stem = network.backbone.stem
    assert isinstance(stem, Convolution)
    if any(value != 1 for value in spec.std):
        weight = stem.conv.weight.data.double() / torch.tensor(spec.std, dtype=torch.float64)[:, None, None]
        stem.conv.weight.data = weight.float()
    if spec.colour is Colour.RGB:
        stem.conv.weight.data = stem.conv.weight.data.flip(1).contiguous()


def _check(model: RetinaFace, spec: Spec) -> None:
    shape = model.architecture
    if shape.strides != spec.strides or shape.anchors != tuple(len(sizes) for sizes in spec.anchor_sizes):
        raise BackboneError(
            f"the detector has {shape.anchors} anchors per cell on strides {shape.strides}, the spec has "
            f"{tuple(len(sizes) for sizes in spec.anchor_sizes)} on {spec.strides}; take the checkpoint's own settings"
        )
    if shape.landmarks != spec.landmarks:
        raise BackboneError(
            f"the detector has {shape.landmarks} landmarks, the spec {spec.landmarks}; "
            "take the checkpoint's own settings"
        )
    if spec.score is not ScoreCoding.LOGIT or spec.box_coding is not BoxCoding.CENTRE_SIZE:
        raise BackboneError("a RetinaFace has one logit per anchor and boxes as centre and size; the spec has others")
    if spec.mesh is not None and model.channels != spec.mesh.channels:
        raise BackboneError(f"the dense branch reads {spec.mesh.channels} channels, the detector has {model.channels}")


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
    """From channels (background, face) per anchor to one channel, face − background."""
    folded = _like(conv, conv.out_channels // 2)
    assert conv.bias is not None and folded.bias is not None
    folded.weight.data = conv.weight.data[1::2] - conv.weight.data[::2]
    folded.bias.data = conv.bias.data[1::2] - conv.bias.data[::2]
    return folded


def _like(conv: nn.Conv2d, outputs: int) -> nn.Conv2d:
    kernel, stride, padding, dilation = conv.kernel_size[0], conv.stride[0], conv.padding[0], conv.dilation[0]
    return nn.Conv2d(conv.in_channels, outputs, kernel, stride, int(padding), dilation, conv.groups, bias=True)
