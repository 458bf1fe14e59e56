"""Result files: a frozen dataclass for each kind, written as versioned JSON and read back strictly.

The types of each verb are in its folder's `result.py`. Here is what they have in common: reading, writing, and the
parts that say what was measured, on what and where.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, overload

from retinaface_edge.runtime.artifact import ArtifactId
from retinaface_edge.runtime.io.atomic import write_atomic
from retinaface_edge.runtime.io.untrusted import read_json
from retinaface_edge.runtime.records import RecordError, from_json, to_json
from retinaface_edge.runtime.text import json_line

from .errors import MeasurementError
from .results_v1 import upgraded

FORMAT_VERSION: Final = 2
RESULT_BYTES = 1 << 29
"""Most bytes of a result: `bench` keeps every sample, `drift` every face that differs."""
KINDS = ("drift", "eval", "verification", "compare", "bench", "choose", "cost")

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class MeasuredNetwork:
    """One network that was measured; results refer to it by `name`, for instance `openvino int8`.

    `artifact` is None for what is not an artifact of a bundle, such as a checkpoint. `digest` is the SHA-256 of all
    that determines the outputs of the network.
    """

    name: str
    size_bytes: int
    digest: str
    artifact: ArtifactId | None = None


@dataclass(frozen=True)
class BundleOrigin:
    """The bundle that was measured: the digest in its manifest, and where it comes from."""

    digest: str
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class SkippedImage:
    """An image that could not be read, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class ImageSet:
    """The images that were measured: how many, the SHA-256 over their names and contents, and those left out."""

    count: int
    digest: str
    skipped: tuple[SkippedImage, ...] = ()


@dataclass(frozen=True)
class FaceRecord:
    """One face in pixels of the image: `box` is x1, y1, x2, y2, `landmarks` are the five points."""

    score: float
    box: tuple[float, float, float, float]
    landmarks: tuple[tuple[float, float], ...]


def network_named(networks: Sequence[MeasuredNetwork], name: str) -> MeasuredNetwork | None:
    """The network of that name, None where there is none."""
    return next((network for network in networks if network.name == name), None)


def write_result(path: Path, result: object) -> None:
    """Write a result as JSON, atomically."""
    write_atomic(path, json_line(to_json(result)) + "\n")


@overload
def read_result(path: Path, first: type[A]) -> A: ...


@overload
def read_result(path: Path, first: type[A], second: type[B]) -> A | B: ...


def read_result(path: Path, first: type[Any], second: type[Any] | None = None) -> Any:
    """Read a result of one of the given types, chosen by its field `kind`. Files of format 1 are converted.

    Raises `MeasurementError` when the file is not such a result; an unknown, missing or wrong field is named.
    """
    types = {kind_of(one): one for one in (first, second) if one is not None}
    content = read_content(path, tuple(types))
    try:
        return from_json(types[content["kind"]], content)
    except RecordError as error:
        raise MeasurementError(f"{path} is not a result of {content['kind']}: {error}") from error


def read_content(path: Path, kinds: Sequence[str] = KINDS) -> dict[str, Any]:
    """The JSON object of a result of one of `kinds`, in the present format. Its fields are not checked.

    Raises `MeasurementError` when the file is not such a result.
    """
    try:
        content = read_json(path, RESULT_BYTES)
    except (OSError, ValueError, RecursionError) as error:
        raise MeasurementError(f"{path} is not readable JSON ({error}); give a file that --json wrote") from error
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind not in kinds:
        raise MeasurementError(f"{path} is not a result of {' or '.join(kinds)} (its kind is {kind!r})")
    version = content.get("format_version")
    if version == 1 and not isinstance(version, bool):
        return {**upgraded(content), "format_version": FORMAT_VERSION}
    if version != FORMAT_VERSION:
        raise MeasurementError(
            f"{path} has format {version!r}, this version reads 1 and {FORMAT_VERSION}; measure again"
        )
    return dict(content)


def kind_of(result: type[object]) -> str:
    """The value of the field `kind` of a result's type."""
    (kind,) = typing.get_args(typing.get_type_hints(result)["kind"])
    return str(kind)
