"""The version of this package, as it is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version

NOT_INSTALLED = "0+unknown"
"""For code that runs from a folder, which has no version."""


def version() -> str:
    """The version, for instance "0.1.0"."""
    try:
        return installed_version("retinaface-edge")
    except PackageNotFoundError:
        return NOT_INSTALLED
