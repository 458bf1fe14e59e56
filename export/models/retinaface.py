"""RetinaFace in its training form: batch norm, two-class logits, normalised input; on any backbone.

Source: RetinaFace (arXiv 1905.00641, sections 3 and 4.2). Slim and RFB have the same heads without a pyramid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from .backbones import Backbone, BackboneError, Table, backbone_table
from .layers import Activation, ConvNorm, Convolution
from .neck import Context, Pyramid, Upsampling

WIDEST_LEAKY = 64
"""With more channels the pyramid and the context modules use ReLU, as the published training code does."""
COARSEST = 32
"""Stride of the deepest features of a backbone; a pyramid's coarser level is made of them."""


class Predictions(NamedTuple):
    """Raw predictions, one tensor per stride, NCHW, anchors along the channels.

    `scores` have 2 channels per anchor (background, face), `boxes` 4, `landmarks` 2 per landmark.
    """

    scores: tuple[Tensor, ...]
    boxes: tuple[Tensor, ...]
    landmarks: tuple[Tensor, ...]


@dataclass(frozen=True)
class Architecture:
    """All that decides the shapes of a RetinaFace's weights.

    `channels` are the pyramid's, None for a backbone whose features the heads read directly; `strides` of the levels,
    finest first; `anchors` per cell of each level; `landmarks` per face; `upsampling` in the pyramid. Without `leaky`,
    ReLU stands wherever the published code has LeakyReLU, as in the one-megabyte MobileNet.

    Raises `BackboneError` where they do not fit.
    """

    backbone: Table
    channels: int | None = 64
    strides: tuple[int, ...] = (8, 16, 32)
    anchors: tuple[int, ...] = (2, 2, 2)
    landmarks: int = 5
    upsampling: Upsampling = Upsampling.NEAREST
    leaky: bool = True

    def __post_init__(self) -> None:
        known = {*self.backbone.levels, *((2 * COARSEST,) if self.channels else ())}
        if list(self.strides) != [s for s in sorted(known) if self.strides[0] <= s <= self.strides[-1]]:
            raise BackboneError(f"{self.backbone.title} has no levels of strides {', '.join(map(str, self.strides))}")
        if len(self.anchors) != len(self.strides) or min(self.anchors) < 1 or self.landmarks < 1:
            raise BackboneError(f"{len(self.strides)} levels need as many numbers of anchors, each at least one")
        if (self.channels is None) != (self.backbone.pyramid is None):
            raise BackboneError(f"{self.backbone.title} is used {'without' if self.channels else 'with'} a pyramid")
        if self.channels is not None and (self.channels < 4 or self.channels % 4):
            raise BackboneError(
                f"a pyramid of {self.channels} channels: the context modules need a multiple of 4 channels"
            )
        if not self.may_be_leaky:
            object.__setattr__(self, "leaky", True)  # one way to say it, so that equal architectures are equal

    @property
    def tapped(self) -> tuple[int, ...]:
        """Strides whose features the backbone gives."""
        return tuple(stride for stride in self.strides if not self.channels or stride <= COARSEST)

    @property
    def may_be_leaky(self) -> bool:
        """Whether the published code has LeakyReLU anywhere in it."""
        narrow = self.channels is not None and self.channels <= WIDEST_LEAKY
        return narrow or self.backbone.stem.activation is Activation.LEAKY_RELU

    @property
    def head_inputs(self) -> tuple[int, ...]:
        """Channels that the heads of each level read."""
        if self.channels is not None:
            return (self.channels,) * len(self.strides)
        return tuple(self.backbone.channels(stride) for stride in self.strides)


def architecture(backbone: str = "mobilenet_v1_0.25", channels: int | None = None) -> Architecture:
    """The published detector on that backbone; `channels` of the pyramid if they are others than the published.

    Raises `BackboneError` for a backbone that does not exist.
    """
    table = backbone_table(backbone)
    if table.pyramid is None:
        return Architecture(table, None, (8, 16, 32, 64), (3, 2, 2, 3))
    return Architecture(table, channels or table.pyramid)


class SeparableHead(nn.Module):
    """A 3×3 depthwise convolution with ReLU and a 1×1 convolution, both biased: a head of the one-megabyte nets."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs)
        self.depthwise = Convolution(depthwise, Activation.RELU)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))  # type: ignore[no-any-return]


class RetinaFace(nn.Module):
    """The detector. Input: float32 NCHW, normalised as the checkpoint wants it. Output: `Predictions`."""

    def __init__(self, shape: Architecture) -> None:
        super().__init__()
        self.architecture = shape
        table, channels = shape.backbone, shape.channels
        self.backbone = Backbone(table, shape.tapped)
        self.pyramid: Pyramid | None = None
        self.context: nn.ModuleList | None = None
        if channels is not None:
            activation = Activation.LEAKY_RELU if channels <= WIDEST_LEAKY else Activation.RELU
            inputs = [table.channels(stride) for stride in shape.tapped]
            self.pyramid = Pyramid(inputs, channels, activation, shape.strides[-1] > COARSEST, shape.upsampling)
            self.context = nn.ModuleList(Context(channels, activation) for _ in shape.strides)
        self.score = _head(shape, 2)
        self.box = _head(shape, 4)
        self.landmark = _head(shape, 2 * shape.landmarks)
        if not shape.leaky:
            for module in self.modules():
                if isinstance(module, ConvNorm) and module.activation is Activation.LEAKY_RELU:
                    module.activation = Activation.RELU

    @property
    def channels(self) -> int:
        """Of the features that all heads read. Raises `BackboneError` where levels differ in them."""
        if self.architecture.channels is None:
            raise BackboneError(
                f"{self.architecture.backbone.title} has no pyramid, so no dense branch; choose another backbone"
            )
        return self.architecture.channels

    def features(self, x: Tensor) -> list[Tensor]:
        """What all heads read, one tensor per stride: the context modules' outputs, or the backbone's features."""
        levels: list[Tensor] = self.backbone(x)
        if self.pyramid is None or self.context is None:
            return levels
        return [context(level) for context, level in zip(self.context, self.pyramid(levels), strict=True)]

    def forward(self, x: Tensor) -> Predictions:
        return self.predict(self.features(x))

    def predict(self, levels: list[Tensor]) -> Predictions:
        """What the heads make of `features`."""
        heads = (self.score, self.box, self.landmark)
        return Predictions(*(tuple(conv(x) for conv, x in zip(head, levels, strict=True)) for head in heads))


def _head(shape: Architecture, values: int) -> nn.ModuleList:
    """One head: a convolution per level with `values` channels per anchor."""
    levels = list(zip(shape.head_inputs, shape.anchors, strict=True))
    if shape.channels is not None:
        return nn.ModuleList(nn.Conv2d(inputs, anchors * values, 1) for inputs, anchors in levels)
    last_inputs, last_anchors = levels[-1]
    return nn.ModuleList(
        (
            *(SeparableHead(inputs, anchors * values) for inputs, anchors in levels[:-1]),
            nn.Conv2d(last_inputs, last_anchors * values, 3, padding=1),
        )
    )
