"""What the stages of a build make, as types, and as the files that the stage cache keeps."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from retinaface_edge.runtime.records import from_json, to_json

Product = TypeVar("Product")


@dataclass(frozen=True)
class CheckpointFacts:
    """What a checkpoint was recognised as: `family`, `backbone`, and the `wrappings` removed around its weights.

    `terms` is the licence of the family's published weights, where they are all under one.
    """

    family: str
    backbone: str
    sha256: str
    wrappings: tuple[str, ...] = ()
    terms: str | None = None


@dataclass(frozen=True)
class RecognisedCheckpoint:
    """A checkpoint before any export: what it is, and its contract, `spec` as JSON, for the size that was asked for."""

    checkpoint: CheckpointFacts
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class ExportedNetwork:
    """The FP32 ONNX model, and the multiply–accumulates of one frame."""

    model: bytes
    multiply_accumulates: int


@dataclass(frozen=True)
class QuantisedNetwork:
    """The INT8 ONNX model, with the bundle's files that explain it: JSON, and a Markdown table of its layers.

    `warnings` are about the calibration images.
    """

    model: bytes
    calibration: bytes
    recipe: bytes
    layers: bytes
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ResizedNetwork:
    """The FP32 and the INT8 ONNX model for another input size, and the multiply–accumulates of one frame."""

    fp32: bytes
    int8: bytes
    multiply_accumulates: int


@dataclass(frozen=True)
class SelfChecked:
    """A detector that passed its self-check, with `notes` on what could not be checked."""

    notes: tuple[str, ...]


@dataclass(frozen=True)
class DenseBranch:
    """The dense branch as ONNX models, with the JSON files that explain the INT8 one."""

    fp32: bytes
    int8: bytes
    calibration: bytes
    recipe: bytes


@dataclass(frozen=True)
class LoweredNetwork:
    """One network for OpenVINO (XML and weights) and for TFLite."""

    xml: bytes
    weights: bytes
    tflite: bytes


def to_files(product: object) -> dict[str, bytes]:
    """A file for each field, named after it: bytes as they are, anything else as JSON."""
    values = {field.name: getattr(product, field.name) for field in fields(product)}  # type: ignore[arg-type]
    return {
        name: value if isinstance(value, bytes) else json.dumps(to_json(value), sort_keys=True).encode()
        for name, value in values.items()
    }


def from_files(kind: type[Product], files: Mapping[str, bytes]) -> Product:
    """The product of type `kind` whose files `to_files` gave."""
    values: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(kind).items():
        values[name] = files[name] if hint is bytes else from_json(hint, json.loads(files[name]), name)
    return kind(**values)
