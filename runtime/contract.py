"""The contract of one network: its input, its outputs in a fixed order, and the codings of what it predicts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

VERTICES = 468
"""Of a mesh, those of `topology`."""
MESH_LEVELS = 3
MESH_LANDMARKS = 5
MESH_POINTS = MESH_LEVELS * MESH_LANDMARKS
MESH_OFFSETS = 12
"""A face is described by the features at five landmarks on three strides, and by twelve numbers more (`mesh.py`)."""


class Colour(str, Enum):
    """The order of channels that a network was trained on. The artifacts' input is BGR all the same."""

    BGR = "BGR"
    RGB = "RGB"


class BoxCoding(str, Enum):
    """How four numbers are a box.

    `CENTRE_SIZE`: shift of the centre and logarithm of the sides, in units of the anchor's size, times the variances.
    `DISTANCES`: left, top, right and bottom side from the cell's origin, in units of the stride.
    """

    CENTRE_SIZE = "centre-size"
    DISTANCES = "distances"


class ScoreCoding(str, Enum):
    """How raw numbers are a score.

    `LOGIT`: the sigmoid of `score_*`. `FACE_OBJECT`: √(sigmoid of `score_*` × sigmoid of `object_*`).
    """

    LOGIT = "logit"
    FACE_OBJECT = "face-object"


class Head(NamedTuple):
    """One kind of prediction: its name, and how many channels every anchor has in it."""

    name: str
    channels: int


class Output(NamedTuple):
    """One output tensor of the network: NHWC, shape (1, height, width, anchors × channels)."""

    name: str
    head: str
    stride: int
    shape: tuple[int, int, int, int]


class Contract(Protocol):
    """The contract of one network. `Spec`, `NetworkContract` and `Mesh` are such contracts."""

    @property
    def input_name(self) -> str:
        """Name of the input tensor."""
        ...

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of the input tensor."""
        ...

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the levels, if there are any."""
        ...

    @property
    def heads(self) -> tuple[Head, ...]:
        """Predictions of every anchor, if there are any."""
        ...

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Every output tensor, in order."""
        ...


class NetworkContract(NamedTuple):
    """A contract as plain values, for instance that of a detector which also gives its features."""

    input_name: str
    input_shape: tuple[int, int, int, int]
    strides: tuple[int, ...]
    heads: tuple[Head, ...]
    outputs: tuple[Output, ...]


@dataclass(frozen=True)
class Mesh:
    """The contract of the dense branch: a second network, which gives a 3D face for each kept face of the detector.

    The detector has one more output per stride, `feature_*` with `channels` channels. The branch's input `feature` is
    float32 (1, 1, batch, inputs), one column per face: what `mesh.describe` takes from those outputs. Its output
    `vertices` is (1, 1, batch, 3·vertices): x, y, z of each vertex in units of the face's frame (`mesh.place`).
    """

    channels: int = 64
    batch: int = 8
    vertices: int = VERTICES

    def __post_init__(self) -> None:
        if min(self.channels, self.batch) < 1:
            raise ValueError("a mesh has at least one channel and one face per batch")
        if self.vertices != VERTICES:
            raise ValueError(f"a mesh has the {VERTICES} vertices of `topology`, not {self.vertices}")

    @property
    def input_name(self) -> str:
        """`feature`."""
        return "feature"

    @property
    def strides(self) -> tuple[int, ...]:
        """None: the branch has no levels."""
        return ()

    @property
    def heads(self) -> tuple[Head, ...]:
        """None: the branch has no anchors."""
        return ()

    @property
    def inputs(self) -> int:
        """How many numbers describe a face."""
        return MESH_POINTS * self.channels + MESH_OFFSETS

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of `feature`."""
        return (1, 1, self.batch, self.inputs)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """`vertices` alone."""
        return (Output("vertices", "vertices", 1, (1, 1, self.batch, 3 * self.vertices)),)
