"""What a trained detector is, once its checkpoint is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .errors import MAX_BYTES, CheckpointError, some

if TYPE_CHECKING:
    import onnx

    from retinaface_edge.runtime.spec import Mesh, Spec

    from ..models.retinaface import RetinaFace
    from .interpretation import Interpretation

__all__ = ["MAX_BYTES", "Checkpoint", "CheckpointError", "CheckpointSource", "TrainedDetector", "some"]


class TrainedDetector(Protocol):
    """A detector that was read from a file, of whatever kind: what it is, and how it becomes the contract's graph."""

    @property
    def family(self) -> str:
        """Whose layout the file has, for instance `biubug6` or `SCRFD`."""
        ...

    @property
    def title(self) -> str:
        """The network as people write it, for instance `MobileNetV1 x0.25`."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the file's bytes."""
        ...

    @property
    def wrappings(self) -> tuple[str, ...]:
        """The containers and prefixes removed around its weights."""
        ...

    @property
    def terms(self) -> str | None:
        """The licence of the family's published weights, where they are all under one."""
        ...

    @property
    def feature_channels(self) -> int:
        """Of the features that a dense branch reads. Raises a `RetinaFaceEdgeError` where there are none."""
        ...

    def spec(self, width: int, height: int, mesh: Mesh | None = None) -> Spec:
        """The contract for an input of that size. Raises `SpecError` for a size that no detector takes."""
        ...

    def graph(self, spec: Spec, opset: int) -> onnx.ModelProto:
        """The FP32 graph of `spec.with_features`. Raises a `RetinaFaceEdgeError` when it cannot be made."""
        ...


class CheckpointSource(Protocol):
    """Where a trained detector comes from. Equal keys mean equal weights, read in the same way."""

    @property
    def digest(self) -> str:
        """SHA-256 of the file's bytes."""
        ...

    @property
    def key(self) -> str:
        """The digest, and the settings with which the file is read."""
        ...

    def read(self) -> TrainedDetector:
        """The detector. Raises `CheckpointError` when it is none that this project knows."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """A model read from a checkpoint.

    `family` is what its names were recognised as, `wrappings` what was removed around its state dict, in order from
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

    @property
    def key(self) -> str:
        """Its weights are known by their digest, and it is used as it is."""
        return f"{self.digest} {self.interpretation!r}"

    @property
    def terms(self) -> str | None:
        """Unknown: people publish such weights under many licences."""
        return None

    @property
    def feature_channels(self) -> int:
        """Of the features that a dense branch reads. Raises `BackboneError` where levels differ in them."""
        return self.model.channels

    def spec(self, width: int, height: int, mesh: Mesh | None = None) -> Spec:
        """The contract for an input of that size. Raises `SpecError` for a size that no detector takes."""
        return self.interpretation.spec(width, height, mesh)

    def graph(self, spec: Spec, opset: int) -> onnx.ModelProto:
        """The FP32 graph of `spec.with_features`, exported and checked. Raises `ExportError`."""
        from ..graph.export import to_onnx  # late: PyTorch takes seconds
        from ..models.deploy import Deploy

        return to_onnx(Deploy(self.model, spec).eval(), spec.with_features, opset)

    def read(self) -> Checkpoint:
        """A model in memory is its own `CheckpointSource`."""
        return self
