"""The manifest of a bundle and its provenance as types: what `manifest.json` must and may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..artifact import Backend, File, Precision
from ..contract import BoxCoding, Colour, Head, Mesh, Output, ScoreCoding

Pair = tuple[float, float]
Channels = tuple[float, float, float]


@dataclass(frozen=True)
class ImageInput:
    """The input tensor of every artifact, for readers in other languages."""

    name: str
    dtype: Literal["uint8"]
    layout: Literal["NHWC"]
    colour: Literal["BGR"]
    shape: tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class SpecEntry:
    """The contract of the detector, with its outputs spelled out for readers in other languages.

    `Spec` has the same fields and says what they mean. Those with a default are of format 2, and are there only where
    they differ from what format 1 meant.
    """

    width: int
    height: int
    mean: Channels
    strides: tuple[int, ...]
    anchor_sizes: tuple[tuple[int, ...], ...]
    variances: Pair
    heads: tuple[Head, ...]
    std: Channels | None = None
    colour: Colour | None = None
    padding: tuple[int, int, int] | None = None
    origin: float | None = None
    box_coding: BoxCoding | None = None
    score: ScoreCoding | None = None
    landmarks: int | None = None
    blend_landmarks: bool | None = None
    mesh: Mesh | None = None
    input: ImageInput
    outputs: tuple[Output, ...]


@dataclass(frozen=True)
class ArtifactEntry:
    """One compiled network: the model's file first, then those that belong to it."""

    backend: Backend
    precision: Precision
    files: tuple[File, ...]


@dataclass(frozen=True)
class SizeEntry:
    """The same detector for another input size: its contract, artifacts and cost. Meshes are the first size's."""

    spec: SpecEntry
    artifacts: tuple[ArtifactEntry, ...]
    network: NetworkEntry


@dataclass(frozen=True)
class CheckpointEntry:
    """The checkpoint that was compiled. `width` and `channels` are of manifests that do not say `backbone` yet."""

    family: str
    sha256: str
    licence: str
    backbone: str | None = None
    wrappings: tuple[str, ...] = ()
    width: float | None = None
    channels: int | None = None


@dataclass(frozen=True)
class CalibrationEntry:
    """The images that INT8 was calibrated on: the SHA-256 over them, their number, and the names of those left out."""

    sha256: str
    images: int
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class NetworkEntry:
    """What one frame costs."""

    multiply_accumulates: int


@dataclass(frozen=True)
class Provenance:
    """What a bundle was made from. `tools` and `licences` are by package.

    `mesh` is what `train-mesh` kept about the dense branch, with the SHA-256 of its file.
    """

    checkpoint: CheckpointEntry
    calibration: CalibrationEntry
    opset: int
    tools: Mapping[str, str]
    licences: Mapping[str, str]
    network: NetworkEntry | None = None
    mesh: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ReleaseEntry:
    """A signed bundle's version, and its last day as `YYYY-MM-DD`."""

    version: int
    expires: str | None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bundle holds; `digest` is the SHA-256 of the canonical JSON of the other fields.

    `spec` and `artifacts` are of the first input size, `sizes` has the others. A runtime needs no `provenance`; `facts`
    and the verbs that show it refuse a bundle without it.
    """

    format_version: Literal[1, 2, 3]
    digest: str
    spec: SpecEntry
    artifacts: tuple[ArtifactEntry, ...]
    files: tuple[File, ...]
    meshes: tuple[ArtifactEntry, ...] = ()
    sizes: tuple[SizeEntry, ...] = ()
    provenance: Provenance | None = None
    release: ReleaseEntry | None = None
