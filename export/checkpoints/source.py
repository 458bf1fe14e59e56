"""A checkpoint's bytes: known by their digest at once, read into a model only when a stage of the build needs it."""

from __future__ import annotations

import errno
import hashlib
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path

from retinaface_edge.runtime.io.untrusted import read_file

from .checkpoint import MAX_BYTES, Checkpoint, CheckpointError, CheckpointSource, TrainedDetector
from .interpretation import Overrides

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointFile",
    "CheckpointFormat",
    "CheckpointSource",
    "TrainedDetector",
    "Overrides",
    "checkpoint_file",
    "read_checkpoint",
]


class CheckpointFormat(Enum):
    """How a checkpoint's bytes are to be read."""

    PICKLE = "pickle"
    SAFETENSORS = "safetensors"
    ONNX = "onnx"


NOTHING = Overrides()
SUFFIXES = {".onnx": CheckpointFormat.ONNX, ".safetensors": CheckpointFormat.SAFETENSORS}
"""Every other suffix is a pickle's."""


@dataclass(frozen=True)
class CheckpointFile:
    """The bytes of a checkpoint, and what the user says about it. `name` is for messages."""

    name: str
    content: bytes = field(repr=False)
    format: CheckpointFormat
    overrides: Overrides = NOTHING

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the bytes."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def key(self) -> str:
        """The digest, and what the user says."""
        return f"{self.digest} {self.overrides!r}"

    def read(self) -> TrainedDetector:
        """The detector. Raises `CheckpointError` when it is none that this project knows."""
        if self.format is CheckpointFormat.ONNX:
            from .detectors.recognise import read_onnx_detector

            if (detector := read_onnx_detector(self.content, self.name, self.overrides)) is not None:
                return detector
        return self.read_retinaface()

    def read_retinaface(self) -> Checkpoint:
        """The model in PyTorch. Raises `CheckpointError` when the file is not a RetinaFace."""
        # Late: PyTorch takes seconds, and is often not needed.
        if self.format is CheckpointFormat.ONNX:
            from .onnx_retinaface import read_onnx as reader
        elif self.format is CheckpointFormat.SAFETENSORS:
            from .state_dicts import read_safetensors as reader
        else:
            from .state_dicts import read_pickle as reader
        return reader(self.content, self.name, self.overrides)


def checkpoint_file(path: Path, overrides: Overrides | None = None) -> CheckpointFile:
    """The bytes of the file at `path`. Raises `CheckpointError` when it cannot be read, or can be no RetinaFace."""
    if path.is_dir() or not path.exists():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{path} {what}; give a checkpoint file (.pth, .safetensors or .onnx)")
    try:
        content = read_file(path, MAX_BYTES)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise CheckpointError(f"{path} is larger than {MAX_BYTES:,} bytes; give a RetinaFace checkpoint") from error
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error
    kind = SUFFIXES.get(path.suffix.lower(), CheckpointFormat.PICKLE)
    return CheckpointFile(str(path), content, kind, overrides or NOTHING)


def read_checkpoint(path: Path, overrides: Overrides | None = None) -> Checkpoint:
    """Read a `.pth`, `.safetensors` or `.onnx` file. Raises `CheckpointError` when it is not a RetinaFace."""
    return checkpoint_file(path, overrides).read_retinaface()
