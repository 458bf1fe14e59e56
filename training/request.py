"""The request for a training run, and the reporter of its progress."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from retinaface_edge.export.checkpoints.checkpoint import Checkpoint, TrainedDetector
from retinaface_edge.export.models.mesh_linear import LinearBranch
from retinaface_edge.runtime.spec import Spec

from .errors import TrainingError
from .label_files import LANDMARKS, Annotated
from .losses import Losses


@dataclass(frozen=True)
class TrainRequest:
    """Train the detector of `checkpoint` on `pictures` for `steps` steps of `batch` pictures.

    `size` is the network's input (width, height). During the first `batch_norm_steps` steps, batch norm normalises with
    the statistics of the batch and updates its running ones; after them it uses the running ones, which stay as they
    are. A detector that is trained from scratch needs such steps, a trained one does not. With `augment`, pictures are
    cropped, mirrored and changed in brightness at random. The run's state is written to `state` every `save_every`
    steps. `device` is a PyTorch device.

    Raises `TrainingError` when the detector does not have five landmarks.
    """

    checkpoint: Checkpoint
    pictures: Sequence[Annotated]
    size: tuple[int, int]
    state: Path
    steps: int = 1000
    batch: int = 4
    rate: float = 1e-4
    seed: int = 0
    batch_norm_steps: int = 0
    augment: bool = True
    device: str = "cpu"
    save_every: int = 50

    def __post_init__(self) -> None:
        if self.spec.landmarks != LANDMARKS:
            raise TrainingError(
                f"the checkpoint has {self.spec.landmarks} landmarks, labels have {LANDMARKS}; "
                f"give a checkpoint with {LANDMARKS} landmarks"
            )

    @property
    def spec(self) -> Spec:
        """The checkpoint's own settings at that input size."""
        return self.checkpoint.spec(*self.size)


@dataclass(frozen=True)
class MeshTrainRequest:
    """Train a dense branch for the frozen detector of `checkpoint` on the photographs in `images`.

    `teacher` is the file of the 468-point network that labels them. `canvases` augmented pictures are drawn, and the
    branch, whose decoder is of the kind `decoder`, is trained on them for `epochs` epochs. `cache` is the folder of
    intermediate results; None keeps none.
    """

    checkpoint: TrainedDetector
    images: Sequence[Path]
    teacher: Path
    canvases: int = 12000
    epochs: int = 40
    seed: int = 0
    threads: int = 2
    decoder: str = LinearBranch.kind
    cache: Path | None = None

    def __post_init__(self) -> None:
        if self.canvases < 1:
            raise TrainingError(f"training needs at least one canvas, not {self.canvases}")


class Reporter(Protocol):
    """Is told how a training run goes."""

    def stage(self, text: str) -> None:
        """A part of the run begins, or has found something out."""

    def progress(self, items: Iterable[Any]) -> Iterable[Any]:
        """The items of a long part, for it to iterate over."""
        ...

    def losses(self, step: int, losses: Losses) -> None:
        """A step is done, and these were its losses."""


class Silent:
    """A `Reporter` that tells nobody."""

    def stage(self, text: str) -> None:
        """Say nothing."""

    def progress(self, items: Iterable[Any]) -> Iterable[Any]:
        """The items as they are."""
        return items

    def losses(self, step: int, losses: Losses) -> None:
        """Say nothing."""
