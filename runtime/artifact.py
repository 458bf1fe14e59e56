"""Names of a bundle's artifacts: the backend that runs one, and its precision."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Backend(str, Enum):
    """What runs an artifact."""

    OPENVINO = "openvino"
    TFLITE = "tflite"
    ONNXRUNTIME = "onnxruntime"

    def __str__(self) -> str:  # the same text in an f-string on every Python
        return self.value


class Precision(str, Enum):
    """What an artifact computes in."""

    FP32 = "fp32"
    INT8 = "int8"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class ArtifactId:
    """One artifact of a bundle, for instance `ArtifactId(Backend.OPENVINO, Precision.INT8)`.

    Prints as `openvino int8`, the form that results and messages have; `parse` reads it.
    """

    backend: Backend
    precision: Precision

    def __str__(self) -> str:
        return f"{self.backend.value} {self.precision.value}"

    @classmethod
    def parse(cls, text: str) -> ArtifactId:
        """Read what `str` gave. Raises `ValueError` for anything else."""
        backend, _, precision = text.partition(" ")
        return cls(Backend(backend), Precision(precision))


class File(NamedTuple):
    """One file of a bundle: its path inside it, its size in bytes and its SHA-256."""

    path: str
    bytes: int
    sha256: str
