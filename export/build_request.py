"""The request for a build, and the reporter of its progress."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from retinaface_edge.calibration.dataset.image_set import ImageSource
from retinaface_edge.calibration.recipe import Recipe
from retinaface_edge.runtime.bundle.release import Release

from .bundle_writer import Sign
from .checkpoints.source import CheckpointSource
from .graph.opset import DEFAULT_OPSET
from .stage_cache import StageRun

if TYPE_CHECKING:
    from .models.mesh_branch import Branch


@dataclass(frozen=True)
class BuildRequest:
    """A checkpoint to compile for inputs of `size` (width, height), INT8 by `recipe` on `images`, into `output`.

    The bundle also has the detector for `more_sizes`, with the same weights and quantisation parameters.

    With `max_drift`, a percentage, as few layers stay float as keep the drift of the INT8 faces within it. With
    `branch`, the bundle has a dense branch. `self_check` stops a build whose detector is implausible. `cache` is the
    folder of finished stages; None keeps none. `sign` signs the manifest, which states the `release`.
    """

    checkpoint: CheckpointSource
    size: tuple[int, int]
    images: ImageSource
    recipe: Recipe
    output: Path
    opset: int = DEFAULT_OPSET
    max_drift: float | None = None
    branch: Branch | None = None
    cache: Path | None = None
    checkpoint_licence: str | None = None
    self_check: bool = True
    sign: Sign | None = None
    release: Release | None = None
    more_sizes: Sequence[tuple[int, int]] = ()


class Reporter(Protocol):
    """Receives the progress of a build."""

    def stage(self, text: str) -> None:
        """A step begins, or has found something out."""

    def warn(self, text: str) -> None:
        """Something is wrong with the calibration images."""

    def progress(self, items: Iterable[Any]) -> Iterable[Any]:
        """The items of a long step, for it to iterate over."""
        ...

    def finished(self, run: StageRun) -> None:
        """A stage is done."""


class Silent:
    """A `Reporter` that reports nothing."""

    def stage(self, text: str) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say nothing."""

    def progress(self, items: Iterable[Any]) -> Iterable[Any]:
        """The items as they are."""
        return items

    def finished(self, run: StageRun) -> None:
        """Say nothing."""
