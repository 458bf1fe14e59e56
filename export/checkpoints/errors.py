"""The error for a checkpoint that cannot be read, and the limits of what is read at all."""

from __future__ import annotations

from retinaface_edge.runtime.errors import RetinaFaceEdgeError

MAX_BYTES = 1 << 30
"""The largest RetinaFace in use has 250 MB."""
NAMES_SHOWN = 8


class CheckpointError(RetinaFaceEdgeError):
    """A checkpoint that is not a RetinaFace this project can read."""


def some(names: list[str]) -> str:
    """The first few of many names, for a message."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
