"""Families of published checkpoints: recognised by their keys and shapes, for every backbone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..models.backbones import BackboneError, Table, backbone_table
from ..models.backbones.mobilenet_v1 import STEM, mobilenet_v1
from ..models.backbones.resnet import BLOCKS, BOTTLENECKS_FROM
from ..models.retinaface import Architecture
from .assemble import MOST_CHANNELS, Recognised
from .checkpoint import CheckpointError, some
from .layer_names import HeadNames, backbone_layers, neck_layers, one_megabyte_layers, our_layers

LEVELS_FROM = {3: (8, 16, 32), 4: (4, 8, 16, 32), 5: (4, 8, 16, 32, 64)}
"""Strides of a pyramid by its number of levels."""


@dataclass(frozen=True)
class Family:
    """How one family names its tensors: where the backbone is, its depthwise block's layers, and the three heads."""

    name: str
    prefix: str
    depthwise: tuple[str, str, str, str]
    """Convolution and norm of the depthwise, then of the pointwise part, in MobileNetV1."""
    heads: HeadNames
    known_as: str


BIUBUG6 = Family(
    "biubug6",
    "body",
    ("0", "1", "3", "4"),
    HeadNames("ClassHead.{}.conv1x1", "BboxHead.{}.conv1x1", "LandmarkHead.{}.conv1x1"),
    "biubug6, facexlib, bubbliiiing, ternaus, Open Model Zoo",
)
YAKHYO = Family(
    "yakhyo",
    "fx",
    ("0.0", "0.1", "1.0", "1.1"),
    HeadNames("class_head.class_head.{}", "bbox_head.bbox_head.{}", "landmark_head.landmark_head.{}"),
    "yakhyo",
)
OURS = "retinaface-edge"
ONE_MEGABYTE = "one-megabyte"
FAMILIES = (BIUBUG6.name, YAKHYO.name, OURS, ONE_MEGABYTE)


def recognise(state: Mapping[str, Tensor], name: str) -> Recognised:
    """The family and the architecture of a state dict without wrappings. `name` is for messages.

    Raises `CheckpointError` when the keys are of no known family, or tell of no network that could be one.
    """
    try:
        for family in (BIUBUG6, YAKHYO):
            if any(key.startswith(f"{family.prefix}.") for key in state):
                return _published(state, family, name)
        if any(key.startswith("backbone.") for key in state):
            return _ours(state, name)
        if "conv1.0.weight" in state and any(key.startswith("landm.") for key in state):
            return _one_megabyte(state, name)
    except BackboneError as error:
        raise CheckpointError(f"{name} is not a RetinaFace that is known here: {error}") from error
    known = ", ".join((BIUBUG6.known_as, YAKHYO.known_as, "slim and RFB", OURS))
    raise CheckpointError(f"{name} is not a RetinaFace of a known family ({known}); it holds: {some(list(state))}")


def _published(state: Mapping[str, Tensor], family: Family, name: str) -> Recognised:
    table = _table(state, family, name)
    laterals = [f"fpn.output{n}.0.weight" for n in range(1, _count(state, r"fpn\.output(\d+)\.0\.weight"))]
    shape = _with_pyramid(state, table, laterals, family.heads, name)
    layers = (
        *backbone_layers(table, family.prefix, family.depthwise, shape.tapped),
        *neck_layers(shape),
        *family.heads.layers(shape),
    )
    return Recognised(family.name, shape, layers)


def _table(state: Mapping[str, Tensor], family: Family, name: str) -> Table:
    """The backbone, by its keys; MobileNetV1's width by the channels of its first convolution."""
    prefix = family.prefix
    if f"{prefix}.layer1.0.conv1.weight" in state:
        counts = tuple(_count(state, rf"{prefix}\.layer{stage}\.(\d+)\.conv1\.weight") for stage in range(1, 5))
        deep = f"{prefix}.layer1.0.conv3.weight" in state
        for depth, blocks in BLOCKS.items():
            if blocks == counts and (depth >= BOTTLENECKS_FROM) == deep:
                return backbone_table(f"resnet{depth}")
        raise CheckpointError(
            f"{name} has a ResNet of {counts} {'bottleneck' if deep else 'basic'} blocks, which is none of "
            f"{', '.join(f'ResNet-{depth}' for depth in BLOCKS)}"
        )
    if any(key.startswith(f"{prefix}.features.") for key in state):
        return backbone_table("mobilenet_v2")
    return mobilenet_v1(_width(state, f"{prefix}.stage1.0.0.weight", name))


def _ours(state: Mapping[str, Tensor], name: str) -> Recognised:
    """Our own names: the same modules whatever the backbone, so shapes and the numbers of blocks tell it."""
    heads = HeadNames("score.{}", "box.{}", "landmark.{}")
    for table in _our_tables(state, name):
        if table.pyramid is None:
            shape = _without_pyramid(state, table, "landmark.{}.pointwise", "landmark.3", name)
        else:
            laterals = [
                f"pyramid.lateral.{level}.conv.weight"
                for level in range(_count(state, r"pyramid\.lateral\.(\d+)\.conv\.weight"))
            ]
            shape = _with_pyramid(state, table, laterals, heads, name)
        return Recognised(OURS, shape, tuple(our_layers(shape)))
    raise CheckpointError(f"{name} has a backbone of another shape than any known; it holds: {some(list(state))}")


def _our_tables(state: Mapping[str, Tensor], name: str) -> Iterator[Table]:
    stages = [_count(state, rf"backbone\.stages\.{stage}\.(\d+)\..*") for stage in range(4)]
    if any(key.startswith("backbone.stages.0.0.depthwise") for key in state):
        if stages[3]:
            dilated = any(key.startswith("backbone.stages.0.6.branches") for key in state)
            yield backbone_table("rfb" if dilated else "slim")
        else:
            yield mobilenet_v1(_width(state, "backbone.stem.conv.weight", name))
    elif stages[3]:
        deep = "backbone.stages.0.0.chain.2.conv.weight" in state
        for depth, blocks in BLOCKS.items():
            if list(blocks) == stages and (depth >= BOTTLENECKS_FROM) == deep:
                yield backbone_table(f"resnet{depth}")
    elif stages[0]:
        yield backbone_table("mobilenet_v2")
    else:
        yield mobilenet_v1(_width(state, "backbone.stem.conv.weight", name))


def _one_megabyte(state: Mapping[str, Tensor], name: str) -> Recognised:
    table = backbone_table("rfb" if any(key.startswith("conv8.branch0") for key in state) else "slim")
    shape = _without_pyramid(state, table, "landm.{}.2", "landm.3", name)
    return Recognised(ONE_MEGABYTE, shape, tuple(one_megabyte_layers(shape)))


def _with_pyramid(
    state: Mapping[str, Tensor], table: Table, laterals: list[str], heads: HeadNames, name: str
) -> Architecture:
    """Channels from the first lateral convolution, levels from their number and what they read, anchors from boxes."""
    channels = _size(state, laterals[0] if laterals else "fpn.output1.0.weight", name)
    if channels < 4 or channels % 4:
        raise CheckpointError(f"{name} has a pyramid of {channels} channels; the context modules need a multiple of 4")
    boxes = heads.box.replace("{}", r"(\d+)").replace(".", r"\.")
    count = max(_count(state, rf"{boxes}\.weight"), len(laterals))
    if count not in LEVELS_FROM:
        raise CheckpointError(f"{name} has a pyramid of {count} levels; known are {', '.join(map(str, LEVELS_FROM))}")
    strides = LEVELS_FROM[count]
    if count == 4 and laterals and _reads(state, laterals[0]) == table.channels(8):
        strides = (8, 16, 32, 64)
    anchors = tuple(max(_size(state, f"{heads.box.format(i)}.weight", name) // 4, 1) for i in range(count))
    values = _size(state, f"{heads.landmark.format(0)}.weight", name)
    return Architecture(table, channels, strides, anchors, max(values // (2 * anchors[0]), 1))


def _without_pyramid(state: Mapping[str, Tensor], table: Table, separable: str, last: str, name: str) -> Architecture:
    strides = (8, 16, 32, 64)
    keys = [*(separable.format(level) for level in range(3)), last]
    values = [_size(state, f"{key}.weight", name) for key in keys]
    boxes = [_size(state, f"{key.replace('landmark', 'box').replace('landm', 'loc')}.weight", name) for key in keys]
    anchors = tuple(max(box // 4, 1) for box in boxes)
    return Architecture(table, None, strides, anchors, max(values[0] // (2 * anchors[0]), 1))


def _width(state: Mapping[str, Tensor], key: str, name: str) -> float:
    channels = _size(state, key, name)
    if not STEM // 8 <= channels <= 2 * STEM:
        raise CheckpointError(
            f"{name} has a MobileNetV1 whose first convolution {key} has {channels} channels; known are "
            f"{STEM // 8} to {2 * STEM}"
        )
    return channels / STEM


def _size(state: Mapping[str, Tensor], key: str, name: str) -> int:
    """Output channels of a convolution."""
    if key not in state or state[key].ndim != 4:
        raise CheckpointError(f"{name} has no convolution weight {key}, so it is not a whole RetinaFace checkpoint")
    size = int(state[key].shape[0])
    if not 1 <= size <= MOST_CHANNELS:
        raise CheckpointError(f"{name} has {size:,} channels in {key}, which no RetinaFace has")
    return size


def _reads(state: Mapping[str, Tensor], key: str) -> int:
    return int(state[key].shape[1]) if state[key].ndim == 4 else 0


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers the keys of that pattern have; a hole in the numbering shows as a missing key."""
    expression = re.compile(pattern)
    found = {int(match[1]) for key in state if (match := expression.fullmatch(key)) and len(match[1]) < 4}
    return max(found, default=-1) + 1
