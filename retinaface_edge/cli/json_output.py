"""What `detect`, `verify` and `inspect` print with `--json`, as types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.bundle.manifest import Manifest
from retinaface_edge.runtime.mesh.branch import Pose, head_pose
from retinaface_edge.runtime.ops.faces import Face, Faces

Triple: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class FaceEntry:
    """One face in pixels of the frame: `box` is x1, y1, x2, y2. `id` with `--track`, `vertices` and `pose` with meshes.

    `vertices` are x, y and depth away from the viewer; `pose` is in degrees.
    """

    id: int | None = None
    score: float
    box: tuple[float, float, float, float]
    landmarks: tuple[tuple[float, float], ...]
    vertices: tuple[Triple, ...] | None = None
    pose: Pose | None = None


@dataclass(frozen=True)
class PictureLine:
    """The faces of one picture; `image` is its path, `width` and `height` are in pixels."""

    image: str
    width: int
    height: int
    faces: tuple[FaceEntry, ...]


@dataclass(frozen=True)
class FrameLine:
    """The faces of one frame of a video; `time` is its time in seconds."""

    frame: int
    time: float
    width: int
    height: int
    faces: tuple[FaceEntry, ...]


@dataclass(frozen=True)
class DrawnVideo:
    """The video that `--draw` or `--blur` wrote. `frames` counts repeated ones, too; `rate` is in frames per second."""

    codec: str
    frames: int
    width: int
    height: int
    rate: float


@dataclass(frozen=True)
class EndLine:
    """The last line of a video that was read to its end.

    `promised` is how many frames the source said it has, if it did; `ended` says why it ended before that.
    """

    frames: int
    promised: int | None
    ended: str | None
    drawn: DrawnVideo | None = None


DetectLine: TypeAlias = PictureLine | FrameLine | EndLine


@dataclass(frozen=True)
class Verification:
    """A bundle that is as it was built: the number of its files, and the key that signed it if one was given."""

    bundle: str
    files: int
    signed_by: str | None


@dataclass(frozen=True, kw_only=True)
class Inspection(Manifest):
    """The manifest of a bundle, with the path that the bundle was read from."""

    bundle: str


def face_entries(faces: Faces, ids: NDArray[np.int64] | None = None) -> tuple[FaceEntry, ...]:
    """One entry per face; `ids` (n,) where faces are tracked."""
    return tuple(_entry(face, None if ids is None else int(ids[index])) for index, face in enumerate(faces))


def _entry(face: Face, number: int | None) -> FaceEntry:
    return FaceEntry(
        id=number,
        score=face.score,
        box=face.box,
        landmarks=face.landmarks,
        vertices=None if face.vertices is None else tuple((x, y, z) for x, y, z in face.vertices.tolist()),
        pose=None if face.vertices is None else head_pose(face.vertices),
    )
