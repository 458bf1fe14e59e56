"""What a checkpoint is, once it is read, and the error for one that cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from retinaface_edge.runtime.errors import RetinaFaceEdgeError

if TYPE_CHECKING:
    from ..models.retinaface import RetinaFace
    from .interpretation import Interpretation

MAX_BYTES = 1 << 30
"""The largest RetinaFace in use has 250 MB."""
NAMES_SHOWN = 8


class CheckpointError(RetinaFaceEdgeError):
    """A checkpoint that is not a RetinaFace this project can read."""


class CheckpointSource(Protocol):
    """Where a trained model comes from. Equal digests mean equal weights, read in the same way."""

    @property
    def digest(self) -> str:
        """SHA-256 of the checkpoint's bytes."""

    def read(self) -> Checkpoint:
        """The model. Raises `CheckpointError` when it is none that this project knows."""


@dataclass(frozen=True)
class Checkpoint:
    """A model read from a checkpoint.

    `family` is what its names were recognised as, `wrappings` what was taken off around its state dict, in order from
    the outside, `digest` the SHA-256 of the file's bytes, `interpretation` the settings under which it is to be used.
    """

    model: RetinaFace
    family: str
    digest: str
    interpretation: Interpretation
    wrappings: tuple[str, ...] = ()

    @property
    def backbone(self) -> str:
        """Name of the backbone, as `--backbone` takes it."""
        return self.model.architecture.backbone.name

    @property
    def title(self) -> str:
        """The backbone as people write it."""
        return self.model.architecture.backbone.title

    def read(self) -> Checkpoint:
        """A model in memory is its own `CheckpointSource`."""
        return self


def some(names: list[str]) -> str:
    """The first few of many names, for a message."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
