"""What a checkpoint's keys cannot tell: anchors, normalisation, colour order, activation. Known settings by family."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from retinaface_edge.runtime.spec import Colour, Mesh, Spec

from .errors import CheckpointError

if TYPE_CHECKING:
    from ..models.neck import Upsampling
    from ..models.retinaface import Architecture

Anchors = tuple[tuple[int, ...], ...]
"""Sizes of the anchors of each level, in pixels."""


@dataclass(frozen=True)
class Normalisation:
    """(pixel − mean) / std of each channel, in the order of `colour`, of pixels 0 to 255."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    colour: Colour


@dataclass(frozen=True)
class Interpretation:
    """How a checkpoint is to be used: all of the spec that belongs to the detector and not to the device.

    `leaky` is what its weights were trained with: LeakyReLU where the published code has it, or ReLU.
    """

    strides: tuple[int, ...]
    anchor_sizes: Anchors
    landmarks: int
    mean: tuple[float, float, float] = (104.0, 117.0, 123.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    colour: Colour = Colour.BGR
    variances: tuple[float, float] = (0.1, 0.2)
    leaky: bool = True

    def spec(self, width: int, height: int, mesh: Mesh | None = None) -> Spec:
        """The contract for an input of that size. Raises `SpecError` for a size that no detector takes."""
        return Spec(
            width,
            height,
            mean=self.mean,
            strides=self.strides,
            anchor_sizes=self.anchor_sizes,
            variances=self.variances,
            mesh=mesh,
            std=self.std,
            colour=self.colour,
            landmarks=self.landmarks,
        )


@dataclass(frozen=True)
class Overrides:
    """Settings given by the user; None leaves the default."""

    anchor_sizes: Anchors | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    colour: Colour | None = None
    variances: tuple[float, float] | None = None
    leaky: bool | None = None


CAFFE = Normalisation((104.0, 117.0, 123.0), (1.0, 1.0, 1.0), Colour.BGR)
"""Of biubug6, facexlib, bubbliiiing, yakhyo, Open Model Zoo and the one-megabyte nets."""
CAFFE_RGB = Normalisation((123.0, 117.0, 104.0), (1.0, 1.0, 1.0), Colour.RGB)
IMAGENET = Normalisation((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), Colour.RGB)
"""ImageNet's mean and deviation: ternaus' ResNet-50."""
NORMALISATIONS = (CAFFE, CAFFE_RGB, IMAGENET)

# Sizes for strides 4 to 64: the paper's (section 4.2) from stride 4 on, but two per level as in the published code.
USUAL = {4: (8, 16), 8: (16, 32), 16: (64, 128), 32: (256, 512), 64: (512, 1024)}
SMALL = ((10, 20), (32, 64), (128, 256))
"""Of the one-megabyte MobileNet, whose keys are those of biubug6's, but whose activations are ReLU."""
ONE_MEGABYTE = ((10, 16, 24), (32, 48), (64, 96), (128, 192, 256))
"""Of slim and RFB."""
KNOWN_ANCHORS: tuple[Anchors, ...] = (tuple(USUAL[stride] for stride in (8, 16, 32)), SMALL, ONE_MEGABYTE)


def interpretation(shape: Architecture, overrides: Overrides, name: str) -> Interpretation:
    """The family's defaults with `overrides`. `name` is for messages.

    Raises `CheckpointError` when the anchors do not fit the heads, or must be given as nothing tells them, and when an
    activation is given for a network that has none to choose.
    """
    if overrides.leaky is not None and not shape.may_be_leaky:
        title = shape.backbone.title
        raise CheckpointError(f"{name} is a RetinaFace on {title}, which has no LeakyReLU; leave out --activation")
    sizes = overrides.anchor_sizes or _default_anchors(shape)
    counts = "/".join(map(str, shape.anchors))
    if sizes is None:
        raise CheckpointError(
            f"{name} has {counts} anchors per cell on strides {shape.strides}, whose sizes no file tells; give them, "
            "as in --anchors 16,32/64,128/256,512"
        )
    if tuple(len(level) for level in sizes) != shape.anchors:
        given = "/".join(",".join(map(str, level)) for level in sizes)
        raise CheckpointError(f"{name} has {counts} anchors per cell of its levels; --anchors {given} has others")
    result = Interpretation(shape.strides, sizes, shape.landmarks)
    given_fields = {field.name: getattr(overrides, field.name) for field in fields(overrides)}
    given_fields["anchor_sizes"] = sizes
    if overrides.leaky is None:
        given_fields["leaky"] = is_leaky(sizes)
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    return Interpretation(**{**values, **{key: value for key, value in given_fields.items() if value is not None}})


def is_leaky(anchor_sizes: Anchors) -> bool:
    """Whether a network of these anchors has LeakyReLU where nothing else is said."""
    return anchor_sizes != SMALL


SETTINGS = "settings"


def saved_settings(used: Interpretation, upsampling: Upsampling) -> dict[str, Any]:
    """What a file of ours has beside its state dict: the settings that its keys do not tell, as plain values."""
    values = {field.name: getattr(used, field.name) for field in fields(Overrides)}
    return {SETTINGS: {**values, "colour": used.colour.value, "upsampling": upsampling.value}}


def read_settings(loaded: object, name: str) -> tuple[Overrides, str | None]:
    """The settings that `saved_settings` gave, and the name of the upsampling; nothing for any other file.

    Raises `CheckpointError` when they are damaged.
    """
    saved = loaded.get(SETTINGS) if isinstance(loaded, Mapping) else None
    if not isinstance(saved, Mapping) or "upsampling" not in saved:
        return Overrides(), None
    try:
        levels = tuple(tuple(int(size) for size in level) for level in saved["anchor_sizes"])
        mean, std, variances = (tuple(map(float, saved[key])) for key in ("mean", "std", "variances"))
        (m1, m2, m3), (s1, s2, s3), (v1, v2) = mean, std, variances
        if not all(map(math.isfinite, (*mean, *std, *variances))):
            raise ValueError("a number is not finite")
        leaky = saved.get("leaky", True)
        if not isinstance(leaky, bool):
            raise ValueError(f"leaky is {leaky!r:.40}")
        given = Overrides(levels, (m1, m2, m3), (s1, s2, s3), Colour(saved["colour"]), (v1, v2), leaky)
        return given, str(saved["upsampling"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{name} has damaged settings beside its weights ({str(error)[:80]})") from error


def preferred(given: Overrides, saved: Overrides) -> Overrides:
    """What the user says, and elsewhere what the file says."""
    said = {field.name: getattr(given, field.name) for field in fields(given)}
    return replace(saved, **{key: value for key, value in said.items() if value is not None})


def _default_anchors(shape: Architecture) -> Anchors | None:
    if shape.channels is None:
        return ONE_MEGABYTE if tuple(map(len, ONE_MEGABYTE)) == shape.anchors else None
    usual = tuple(USUAL[stride] for stride in shape.strides)
    return usual if tuple(map(len, usual)) == shape.anchors else None
