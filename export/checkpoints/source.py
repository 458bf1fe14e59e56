"""A checkpoint's bytes: known by their digest at once, read into a model only when a stage of the build needs it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from retinaface_edge.runtime.errors import RetinaFaceEdgeError

if TYPE_CHECKING:
    from .families import Checkpoint

MAX_BYTES = 1 << 30
"""The largest RetinaFace in use has 110 MB."""


class CheckpointError(RetinaFaceEdgeError):
    """A checkpoint that is not a RetinaFace this project can read."""


class CheckpointSource(Protocol):
    """Where a trained model comes from. Equal digests mean equal weights."""

    @property
    def digest(self) -> str:
        """SHA-256 of the checkpoint's bytes."""

    def read(self) -> Checkpoint:
        """The model. Raises `CheckpointError` when it is none that this project knows."""


@dataclass(frozen=True)
class CheckpointFile:
    """The bytes of a `.pth` or, if `onnx`, of an `.onnx` checkpoint. `name` is for messages."""

    name: str
    content: bytes = field(repr=False)
    onnx: bool

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the bytes."""
        return hashlib.sha256(self.content).hexdigest()

    def read(self) -> Checkpoint:
        """The model. Raises `CheckpointError`."""
        from .families import read_onnx, read_pickle  # late: PyTorch takes seconds, and is often not needed

        return (read_onnx if self.onnx else read_pickle)(self.content, self.name)


def checkpoint_file(path: Path) -> CheckpointFile:
    """The bytes of the file at `path`. Raises `CheckpointError` when it cannot be read, or can be no RetinaFace."""
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{path} {what}; give a checkpoint file (.pth or .onnx)")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path} is larger than {MAX_BYTES:,} bytes; give a RetinaFace checkpoint")
        return CheckpointFile(str(path), path.read_bytes(), path.suffix.lower() == ".onnx")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error
