"""Errors that a caller can act on. Each message says what came, what was expected and what to do next."""

from __future__ import annotations

from .text import printable


class RetinaFaceEdgeError(Exception):
    """Base of every error this package raises on purpose; the command line turns it into one line and exit code 2.

    As text it is one line without control characters, whatever the names are that it quotes from a file.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class SpecError(RetinaFaceEdgeError):
    """A detector contract that no artifact can have, for instance an input size that is not a multiple of 32."""


class BundleError(RetinaFaceEdgeError):
    """A bundle that is missing, damaged, of another format, or without the artifact asked for."""


class BackendError(RetinaFaceEdgeError):
    """A backend that is not installed, or an artifact that does not follow the bundle's contract."""


class ImageError(RetinaFaceEdgeError, ValueError):
    """A picture or frame that cannot be used: its file, dtype, channels or size is wrong."""


class ThresholdError(RetinaFaceEdgeError, ValueError):
    """A score or IoU threshold outside 0…1, or a bound on candidates or faces below 1."""
