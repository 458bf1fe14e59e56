"""The contract of a detector: what goes into every artifact, what comes out, and the constants that decode it.

The contract is the same for every backend and precision. It is stored in the bundle's manifest, and the C header is
generated from it. RetinaFace, its slim and RFB relatives, SCRFD and YuNet are points in this space. Sources: RetinaFace
(arXiv 1905.00641), section 4.2 for the anchors; SSD (arXiv 1512.02325), section 2.2, for centre–size boxes with
variances; FCOS (arXiv 1904.01355), section 3.1, for four distances; YuNet (Wu et al. 2023), for face × object scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .contract import (
    MESH_OFFSETS,
    MESH_POINTS,
    VERTICES,
    BoxCoding,
    Colour,
    Contract,
    Head,
    Mesh,
    NetworkContract,
    Output,
    ScoreCoding,
)
from .errors import SpecError
from .spec_checks import check_coding, check_input, check_levels, check_mesh, integer, number

__all__ = [
    "MESH_OFFSETS",
    "MESH_POINTS",
    "VERTICES",
    "BoxCoding",
    "Colour",
    "Contract",
    "Head",
    "Mesh",
    "NetworkContract",
    "Output",
    "ScoreCoding",
    "Spec",
    "nearest_size",
]

SIZE_STEP = 32
MIN_SIZE = (64, 64)
MAX_SIZE = (1920, 1088)


@dataclass(frozen=True)
class Spec:
    """The contract of a detector whose input is `width` × `height` pixels.

    The input is `image`: uint8, NHWC, shape (1, height, width, 3), BGR, 0…255. The graph brings it to `colour`,
    subtracts `mean` and divides by `std`, both in that order of channels. The outputs are, per head and stride, one
    NHWC tensor of raw values: no sigmoid, no decoding, no concatenation. A level has ⌈height / stride⌉ ×
    ⌈width / stride⌉ cells.

    Cell (x, y) has its centre at ((x + origin)·stride, (y + origin)·stride), and one anchor there for each of the
    level's `anchor_sizes`. Landmarks are shifts from the centre, in the units of the box. `padding` is the BGR colour
    beside the picture, the mean colour where it is None. With `blend_landmarks`, a face's landmarks are the mean of its
    own and of those that it suppressed; otherwise its own alone.

    Raises `SpecError` when the size is not a multiple of 32 between 64×64 and 1920×1088, naming the nearest that is,
    and when another field is of the wrong type or out of range.
    """

    width: int = 640
    height: int = 480
    mean: tuple[float, float, float] = (104, 117, 123)
    strides: tuple[int, ...] = (8, 16, 32)
    anchor_sizes: tuple[tuple[int, ...], ...] = ((16, 32), (64, 128), (256, 512))
    variances: tuple[float, float] = (0.1, 0.2)
    mesh: Mesh | None = None
    std: tuple[float, float, float] = (1, 1, 1)
    colour: Colour = Colour.BGR
    padding: tuple[int, int, int] | None = None
    origin: float = 0.5
    box_coding: BoxCoding = BoxCoding.CENTRE_SIZE
    score: ScoreCoding = ScoreCoding.LOGIT
    landmarks: int = 5
    blend_landmarks: bool = True

    def __post_init__(self) -> None:
        try:
            self._check()
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            raise SpecError(f"invalid detector contract: {error}") from error
        if self.padding == self._mean_colour:
            object.__setattr__(self, "padding", None)  # one way to say it, so that equal contracts are equal

    def _check(self) -> None:
        nearest = nearest_size(integer(self.width), integer(self.height))
        if (self.width, self.height) != nearest:
            raise SpecError(
                f"input size {self.width}x{self.height} is not a multiple of {SIZE_STEP} between "
                f"{MIN_SIZE[0]}x{MIN_SIZE[1]} and {MAX_SIZE[0]}x{MAX_SIZE[1]}; "
                f"the nearest valid size is {nearest[0]}x{nearest[1]}"
            )
        for value, kind in (
            (self.colour, Colour),
            (self.box_coding, BoxCoding),
            (self.score, ScoreCoding),
            (self.blend_landmarks, bool),
        ):
            if not isinstance(value, kind):
                raise TypeError(f"{value!r} is not a {kind.__name__}")
        check_input(self.mean, self.std, self.padding)
        check_levels(nearest, self.strides, self.anchor_sizes)
        check_coding(self.box_coding, self.variances, self.origin, self.landmarks)
        if self.mesh is not None:
            check_mesh(self.mesh, nearest, self.strides, self.landmarks)

    @property
    def input_name(self) -> str:
        """`image`."""
        return "image"

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """NHWC shape of the input tensor."""
        return (1, self.height, self.width, 3)

    @property
    def padding_colour(self) -> tuple[int, int, int]:
        """The BGR colour beside the picture."""
        return self._mean_colour if self.padding is None else self.padding

    @property
    def heads(self) -> tuple[Head, ...]:
        """Predictions of every anchor: score, box, landmark if there are any, and object if the score needs it."""
        return self._heads

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Every output tensor, in the order in which artifacts and backends give them: by head, then by stride."""
        return self._outputs

    @property
    def features(self) -> tuple[Output, ...]:
        """The tensors `feature_*` that a detector with a dense branch gives besides `outputs`: one per stride."""
        if self.mesh is None:
            return ()
        return tuple(
            Output(f"feature_{stride}", "feature", stride, (1, *self.cells(stride), self.mesh.channels))
            for stride in self.strides
        )

    @property
    def with_features(self) -> NetworkContract:
        """The whole contract of the artifact: `outputs`, then `features`."""
        outputs = self.outputs + self.features
        return NetworkContract(self.input_name, self.input_shape, self.strides, self.heads, outputs)

    def cells(self, stride: int) -> tuple[int, int]:
        """Rows and columns of cells at `stride`."""
        return -(-self.height // stride), -(-self.width // stride)

    @cached_property
    def anchors(self) -> NDArray[np.float64]:
        """All anchors as rows (centre x, centre y, size), float64, in pixels of the input.

        Ordered by stride, then row, column and size: the order of the raveled output tensors, so that an anchor's
        index is its position in the concatenated `score_*` outputs.
        """
        levels = []
        for stride, sizes in zip(self.strides, self.anchor_sizes, strict=True):
            rows, columns = self.cells(stride)
            y, x, size = np.meshgrid(
                (np.arange(rows) + self.origin) * stride,
                (np.arange(columns) + self.origin) * stride,
                np.array(sizes, np.float64),
                indexing="ij",
            )
            levels.append(np.stack([x.ravel(), y.ravel(), size.ravel()], axis=1))
        return np.concatenate(levels)

    @cached_property
    def units(self) -> NDArray[np.float64]:
        """What a raw 1 is in pixels for each anchor, before variances: its size, or its stride for distances."""
        if self.box_coding is BoxCoding.CENTRE_SIZE:
            return np.ascontiguousarray(self.anchors[:, 2])
        return np.repeat(np.array(self.strides, np.float64), np.diff(self.level_bounds))

    @cached_property
    def level_bounds(self) -> tuple[int, ...]:
        """Where the anchors of each stride begin, and at last their number: one more than there are strides."""
        sizes = [
            height * width * anchors
            for _, height, width, anchors in (o.shape for o in self.outputs[: len(self.strides)])
        ]
        return tuple(accumulate(sizes, initial=0))

    @property
    def format_version(self) -> int:
        """Of the manifest that holds it: 1 for what the first readers know, so that they refuse the rest."""
        divides = all(side % stride == 0 for side in (self.width, self.height) for stride in self.strides)
        return 1 if divides and all(getattr(self, name) == default for name, default in _ADDED.items()) else 2

    def to_json(self) -> dict[str, Any]:
        """The contract as plain JSON values, outputs spelled out for readers in other languages.

        Fields that format 1 did not have are there only where they differ from what it meant.
        """
        content: dict[str, Any] = {
            "width": self.width,
            "height": self.height,
            "mean": [_plain(value) for value in self.mean],
            "strides": self.strides,
            "anchor_sizes": self.anchor_sizes,
            "variances": self.variances,
            "heads": [head._asdict() for head in self.heads],
        }
        for name, default in _ADDED.items():
            value = getattr(self, name)
            if value != default:
                content[name] = value.value if isinstance(value, Enum) else value
        if self.mesh is not None:
            content["mesh"] = asdict(self.mesh)
        content["input"] = {
            "name": self.input_name,
            "dtype": "uint8",
            "layout": "NHWC",
            "colour": "BGR",
            "shape": self.input_shape,
        }
        content["outputs"] = [output._asdict() for output in (*self.outputs, *self.features)]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Spec:
        """Read what `to_json` wrote. Raises `SpecError` naming a field that is missing, unknown or of another type."""
        try:
            return cls(**_read(content))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, SpecError) as error:
            reason = error if isinstance(error, SpecError) else repr(error)
            raise SpecError(f"the manifest's spec cannot be read ({reason}); build the bundle again") from error

    @cached_property
    def _heads(self) -> tuple[Head, ...]:
        return (
            Head("score", 1),
            Head("box", 4),
            *((Head("landmark", 2 * self.landmarks),) if self.landmarks else ()),
            *((Head("object", 1),) if self.score is ScoreCoding.FACE_OBJECT else ()),
        )

    @cached_property
    def _outputs(self) -> tuple[Output, ...]:
        # A property gives it: type checkers do not take a cached one for the property of `Contract`.
        return tuple(
            Output(f"{head.name}_{stride}", head.name, stride, (1, *self.cells(stride), len(sizes) * head.channels))
            for head in self.heads
            for stride, sizes in zip(self.strides, self.anchor_sizes, strict=True)
        )

    @property
    def _mean_colour(self) -> tuple[int, int, int]:
        first, second, third = (round(value) for value in self.mean)
        return (first, second, third) if self.colour is Colour.BGR else (third, second, first)


_FIRST = ("width", "height", "mean", "strides", "anchor_sizes", "variances")
"""Fields that every manifest has."""
_ADDED = {field.name: field.default for field in fields(Spec) if field.name not in (*_FIRST, "mesh")}
"""Fields that format 2 added, and what format 1 means by their absence."""
_DERIVED = ("heads", "input", "outputs")


def nearest_size(width: int, height: int) -> tuple[int, int]:
    """The valid input size nearest to `width` × `height`, each side on its own."""
    return (
        _nearest(width, MIN_SIZE[0], MAX_SIZE[0]),
        _nearest(height, MIN_SIZE[1], MAX_SIZE[1]),
    )


def _nearest(value: int, least: int, most: int) -> int:
    return min(max((value + SIZE_STEP // 2) // SIZE_STEP * SIZE_STEP, least), most)


def _read(content: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Spec` of JSON values; `Spec` checks them."""
    known = (*_FIRST, *_ADDED, *_DERIVED, "mesh")
    if unknown := sorted(set(content) - set(known)):
        raise SpecError(f"there is no field {unknown[0]!r}")
    kinds = {"colour": Colour, "box_coding": BoxCoding, "score": ScoreCoding}
    read = {name: _frozen(content[name]) for name in _FIRST}
    read["variances"] = tuple(float(number(value)) for value in read["variances"])
    read |= {name: kinds.get(name, _frozen)(content[name]) for name in _ADDED if name in content}
    if "mesh" in content:
        read["mesh"] = Mesh(**{key: integer(value) for key, value in content["mesh"].items()})
    heads = tuple(Head(str(head["name"]), integer(head["channels"])) for head in content["heads"])
    expected = Spec(**read).heads
    if heads != expected:
        raise SpecError(f"the heads are not exactly {', '.join(head.name for head in expected)}")
    return read


def _frozen(value: Any) -> Any:
    """Lists as tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _plain(value: float) -> float:
    return int(value) if value == int(value) else value
