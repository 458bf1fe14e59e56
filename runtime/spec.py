"""The detector contract: what goes into every artifact, what comes out, and the constants that decode it.

The contract is the same for every backend and precision. It is stored in the bundle's manifest, and the C header is
generated from it. Sources: RetinaFace (arXiv 1905.00641), section 4.2 for the anchors; SSD (arXiv 1512.02325), section
2.2, for the box coding with variances.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import SpecError

SIZE_STEP = 32
MIN_SIZE = (64, 64)
MAX_SIZE = (1920, 1088)
LARGEST_ANCHOR = 1 << 16
MOST_ANCHORS = 1 << 18
MOST_CHANNELS = 1 << 12
VERTICES = 468
"""Of a mesh, those of `topology`."""
MESH_POINTS = 15
MESH_OFFSETS = 12
"""A face is described by the features at five landmarks on three strides, and by twelve numbers more (`mesh.py`)."""


@dataclass(frozen=True)
class Head:
    """One kind of prediction: its name, and how many channels every anchor has in it."""

    name: str
    channels: int


DECODED = (Head("score", 1), Head("box", 4), Head("landmark", 10))
"""The heads that make a face, in the order in which decoding reads them; others may follow."""


@dataclass(frozen=True)
class Output:
    """One output tensor of the network: NHWC, shape (1, height, width, anchors × channels)."""

    name: str
    head: str
    stride: int
    shape: tuple[int, int, int, int]


class Contract(Protocol):
    """What every network of a bundle promises: one input, and outputs of fixed names and shapes in a fixed order."""

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


@dataclass(frozen=True)
class Mesh:
    """The contract of the dense branch: a second network, which gives a 3D face for each kept face of the detector.

    The detector has one more output a stride, `feature_*` with `channels` channels. The branch's input `feature` is
    float32 (1, 1, batch, inputs), one column a face: what `mesh.describe` takes from those outputs. Its output
    `vertices` is (1, 1, batch, 3·vertices): x, y, z of each vertex in units of the face's frame (`mesh.place`).
    """

    channels: int = 64
    batch: int = 8
    vertices: int = VERTICES

    def __post_init__(self) -> None:
        if min(self.channels, self.batch) < 1:
            raise ValueError("a mesh has at least one channel and one face a batch")
        if self.vertices != VERTICES:
            raise ValueError(f"a mesh has the {VERTICES} vertices of `topology`, not {self.vertices}")

    input_name: ClassVar[str] = "feature"
    strides: ClassVar[tuple[int, ...]] = ()
    heads: ClassVar[tuple[Head, ...]] = ()

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


@dataclass(frozen=True)
class Spec:
    """The contract of a detector whose input is `width` × `height` pixels.

    The input is `image`: uint8, NHWC, shape (1, height, width, 3), BGR, 0…255; mean subtraction lives in the graph.
    The outputs are, per head and stride, one NHWC tensor of raw values: no sigmoid, no decoding, no concatenation.

    Raises `SpecError` when the size is not a multiple of 32 between 64×64 and 1920×1088, naming the nearest that is.
    """

    width: int = 640
    height: int = 480
    mean: tuple[int, int, int] = (104, 117, 123)
    strides: tuple[int, ...] = (8, 16, 32)
    anchor_sizes: tuple[tuple[int, ...], ...] = ((16, 32), (64, 128), (256, 512))
    variances: tuple[float, float] = (0.1, 0.2)
    heads: tuple[Head, ...] = DECODED
    mesh: Mesh | None = None

    input_name: ClassVar[str] = "image"

    def __post_init__(self) -> None:
        nearest = nearest_size(self.width, self.height)
        if (self.width, self.height) != nearest:
            raise SpecError(
                f"input size {self.width}x{self.height} is not a multiple of {SIZE_STEP} between "
                f"{MIN_SIZE[0]}x{MIN_SIZE[1]} and {MAX_SIZE[0]}x{MAX_SIZE[1]}; "
                f"the nearest valid size is {nearest[0]}x{nearest[1]}"
            )

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """NHWC shape of the input tensor."""
        return (1, self.height, self.width, 3)

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """Every output tensor, in the order in which artifacts and backends give them: by head, then by stride."""
        return tuple(
            Output(
                name=f"{head.name}_{stride}",
                head=head.name,
                stride=stride,
                shape=(1, self.height // stride, self.width // stride, len(sizes) * head.channels),
            )
            for head in self.heads
            for stride, sizes in zip(self.strides, self.anchor_sizes, strict=True)
        )

    @cached_property
    def features(self) -> tuple[Output, ...]:
        """The tensors `feature_*` that a detector with a dense branch gives besides `outputs`: one a stride."""
        return tuple(
            Output(
                name=f"feature_{stride}",
                head="feature",
                stride=stride,
                shape=(1, self.height // stride, self.width // stride, self.mesh.channels),
            )
            for stride in self.strides
            if self.mesh is not None
        )

    @property
    def with_features(self) -> Contract:
        """The whole contract of the artifact: `outputs`, then `features`."""
        return WithFeatures(self)

    @cached_property
    def anchors(self) -> NDArray[np.float64]:
        """All anchors as rows (centre x, centre y, size), float64, in pixels of the input.

        Ordered by stride, then row, column and size: the order of the raveled output tensors, so that an anchor's
        index is its position in the concatenated `score_*` outputs.
        """
        levels = []
        for stride, sizes in zip(self.strides, self.anchor_sizes, strict=True):
            y, x, size = np.meshgrid(
                (np.arange(self.height // stride) + 0.5) * stride,
                (np.arange(self.width // stride) + 0.5) * stride,
                np.array(sizes, np.float64),
                indexing="ij",
            )
            levels.append(np.stack([x.ravel(), y.ravel(), size.ravel()], axis=1))
        return np.concatenate(levels)

    @cached_property
    def level_bounds(self) -> tuple[int, ...]:
        """Where the anchors of each stride begin, and at last their number: one more than there are strides."""
        sizes = [
            height * width * anchors
            for _, height, width, anchors in (o.shape for o in self.outputs[: len(self.strides)])
        ]
        return tuple(accumulate(sizes, initial=0))

    def to_json(self) -> dict[str, Any]:
        """The contract as plain JSON values, outputs spelled out for readers in other languages."""
        fields = asdict(self)
        fields["heads"] = [asdict(head) for head in self.heads]
        if self.mesh is None:
            del fields["mesh"]
        fields["input"] = {
            "name": "image",
            "dtype": "uint8",
            "layout": "NHWC",
            "colour": "BGR",
            "shape": self.input_shape,
        }
        fields["outputs"] = [asdict(output) for output in (*self.outputs, *self.features)]
        return fields

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Spec:
        """Read what `to_json` wrote. Raises `SpecError` when a field is missing or has another type."""
        try:
            spec = cls(
                width=_integer(fields["width"]),
                height=_integer(fields["height"]),
                mean=tuple(_integer(value) for value in fields["mean"]),  # type: ignore[arg-type]
                strides=tuple(_integer(value) for value in fields["strides"]),
                anchor_sizes=tuple(tuple(_integer(size) for size in level) for level in fields["anchor_sizes"]),
                variances=tuple(float(value) for value in fields["variances"]),  # type: ignore[arg-type]
                heads=tuple(Head(str(head["name"]), _integer(head["channels"])) for head in fields["heads"]),
                mesh=Mesh(**{key: _integer(value) for key, value in fields["mesh"].items()})
                if "mesh" in fields
                else None,
            )
            _check(spec)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise SpecError(f"the manifest's spec cannot be read ({error!r}); build the bundle again") from error
        return spec


def _check(spec: Spec) -> None:
    """Raise `ValueError` for what no detector has, and what would make decoding fail or take all memory."""
    sizes = [size for level in spec.anchor_sizes for size in level]
    if not (len(spec.mean) == 3 and len(spec.variances) == 2 and 0 < len(spec.strides) == len(spec.anchor_sizes)):
        raise ValueError("numbers of mean values, variances, strides and anchor sizes do not fit together")
    if min(spec.strides) < 1 or any(side % stride for side in (spec.width, spec.height) for stride in spec.strides):
        raise ValueError("a stride does not divide the input's size")
    if not sizes or min(sizes) < 1 or max(sizes) > LARGEST_ANCHOR or not 0 <= min(spec.mean) <= max(spec.mean) <= 255:
        raise ValueError("an anchor size or a mean value is out of range")
    if not all(0.0 < variance <= 1.0 for variance in spec.variances):
        raise ValueError("a variance is not between 0 and 1")
    if spec.heads[: len(DECODED)] != DECODED or any(not 0 < head.channels <= MOST_CHANNELS for head in spec.heads):
        raise ValueError(f"the heads do not begin with {', '.join(head.name for head in DECODED)}")
    if spec.mesh and max(spec.mesh.channels, spec.mesh.batch) > MOST_CHANNELS:
        raise ValueError(f"the mesh has more than {MOST_CHANNELS} channels, or faces a batch")
    positions = (spec.width // stride * (spec.height // stride) for stride in spec.strides)
    if sum(n * len(level) for n, level in zip(positions, spec.anchor_sizes, strict=True)) > MOST_ANCHORS:
        raise ValueError(f"there are more than {MOST_ANCHORS} anchors")


@dataclass(frozen=True)
class WithFeatures:
    """What `spec` promises, and its features."""

    spec: Spec

    input_name: ClassVar[str] = "image"

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """That of the detector."""
        return self.spec.input_shape

    @property
    def strides(self) -> tuple[int, ...]:
        """Those of the detector."""
        return self.spec.strides

    @property
    def heads(self) -> tuple[Head, ...]:
        """Those of the detector: features are no predictions."""
        return self.spec.heads

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The detector's outputs, then its features."""
        return self.spec.outputs + self.spec.features


def nearest_size(width: int, height: int) -> tuple[int, int]:
    """The valid input size nearest to `width` × `height`, each side on its own."""
    return (
        _nearest(width, MIN_SIZE[0], MAX_SIZE[0]),
        _nearest(height, MIN_SIZE[1], MAX_SIZE[1]),
    )


def _nearest(value: int, least: int, most: int) -> int:
    return min(max((value + SIZE_STEP // 2) // SIZE_STEP * SIZE_STEP, least), most)


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not an integer")
    return value
