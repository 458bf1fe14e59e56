"""The teacher of the dense branch: a face-landmark network that gives 468 vertices for an upright crop of one face.

It is MediaPipe's face mesh (arXiv 1907.06724) or any TFLite file with its interface: a float32 RGB crop in 0…1 of shape
(1, S, S, 3) in, 468 × 3 vertices in pixels of the crop and one logit that says whether a face is there out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.errors import RetinaFaceEdgeError
from retinaface_edge.runtime.io.untrusted import read_file
from retinaface_edge.runtime.mesh.topology import topology
from retinaface_edge.runtime.ops.postprocess import Face
from retinaface_edge.runtime.spec import VERTICES

from .teacher_process import BoundedNetwork, Limits, NetworkError, Port

if TYPE_CHECKING:
    from PIL.Image import Image

FIRST_MARGIN, NEXT_MARGIN = 1.3, 1.5
"""The crop's side over the detector's box, then over the extent of the vertices that were found in it."""
LEAST_LOGIT = 2.0
"""Below this the teacher itself does not trust that it sees a face."""
TEACHER_BYTES = 64 << 20
MOST_VALUES = 64 << 20
"""Of all tensors together; MediaPipe's network has 4 million. A small file can ask for any amount of memory."""
FLOAT = "float32"
NEXT_STEP = "give MediaPipe's face_landmark.tflite"


class TeacherError(RetinaFaceEdgeError):
    """A teacher network that is missing or has another interface."""


@dataclass(frozen=True)
class Crop:
    """A square of the picture, seen upright: `side` pixels about `x`, `y`, turned by `angle` radians."""

    x: float
    y: float
    side: float
    angle: float

    def to_frame(self, points: NDArray[np.float64], pixels: int) -> NDArray[np.float64]:
        """Vertices (n, 3) in pixels of the crop, which has `pixels` a side, in pixels of the frame."""
        scale = self.side / pixels
        x, y = (points[:, :2] - 0.5 * pixels).T * scale
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        return np.stack([self.x + cosine * x - sine * y, self.y + sine * x + cosine * y, points[:, 2] * scale], axis=1)


class Teacher:
    """The network, loaded. Raises `TeacherError` when the file is not such a network."""

    def __init__(self, path: Path) -> None:
        try:
            content = read_file(path, TEACHER_BYTES)
        except OSError as error:
            raise TeacherError(f"the teacher {path} cannot be read ({error.strerror}); {NEXT_STEP}") from error
        self.digest = hashlib.sha256(content).hexdigest()
        try:
            self._network = BoundedNetwork(content, Limits(MOST_VALUES))
        except NetworkError as error:
            raise TeacherError(f"{path} is not a TFLite network that runs here ({error}); {NEXT_STEP}") from error
        self._path, inputs = path, self._network.inputs
        outputs = {port.size: i for i, port in enumerate(self._network.outputs) if port.dtype == FLOAT}
        if not _is_square_picture(inputs) or not {3 * VERTICES, 1} <= set(outputs):
            taken = ", ".join(f"{port.shape} {port.dtype}" for port in inputs) or "nothing"
            raise TeacherError(
                f"{path} takes {taken} and gives {sorted(outputs)} values; a teacher takes (1, S, S, 3) {FLOAT} and "
                f"gives {3 * VERTICES} and 1; {NEXT_STEP}"
            )
        self.pixels = inputs[0].shape[1]
        self._vertices, self._logit = outputs[3 * VERTICES], outputs[1]

    def mesh(self, picture: Image, face: Face) -> tuple[NDArray[np.float64], float]:
        """Vertices (468, 3) float64 in pixels of `picture` (RGB), depth away from the viewer, and the logit.

        The first look is at the detector's box, level by its eyes; the second at what the first found. The second is
        averaged with what the network says of the mirrored crop: half of its noise is not the same there.
        """
        left, right = face.landmarks[:2]
        x1, y1, x2, y2 = face.box
        angle = float(np.arctan2(right[1] - left[1], right[0] - left[0]))
        crop = Crop(0.5 * (x1 + x2), 0.5 * (y1 + y2), FIRST_MARGIN * max(x2 - x1, y2 - y1, 1.0), angle)
        seen, _ = self._look(picture, crop)
        crop = _around(crop.to_frame(seen, self.pixels))
        seen, logit = self._look(picture, crop)
        mirrored, other = self._look(picture, crop, mirror=True)
        return crop.to_frame(0.5 * (seen + mirrored), self.pixels), min(logit, other)

    def _look(self, picture: Image, crop: Crop, mirror: bool = False) -> tuple[NDArray[np.float64], float]:
        from PIL.Image import Resampling, Transform

        scale = crop.side / self.pixels
        a, b = scale * np.cos(crop.angle), scale * np.sin(crop.angle)
        centre = 0.5 * self.pixels
        data = (a, -b, crop.x - a * centre + b * centre, b, a, crop.y - b * centre - a * centre)
        taken = picture.transform((self.pixels, self.pixels), Transform.AFFINE, data, Resampling.BILINEAR)
        pixels = np.asarray(taken, np.float32)[np.newaxis] / np.float32(255.0)
        try:
            answers = self._network.run(pixels[:, :, ::-1] if mirror else pixels)
        except NetworkError as error:
            raise TeacherError(f"{self._path} no longer answers ({error}); {NEXT_STEP}") from error
        vertices = answers[self._vertices].reshape(VERTICES, 3).astype(np.float64)
        if not np.isfinite(vertices).all():
            raise TeacherError(f"{self._path} gives vertices that are not numbers; {NEXT_STEP}")
        if mirror:
            vertices = vertices[topology().mirror] * (-1.0, 1.0, 1.0) + (self.pixels, 0.0, 0.0)
        return vertices, float(answers[self._logit].reshape(-1)[0])


def _is_square_picture(inputs: Sequence[Port]) -> bool:
    """Whether there is one input, and it is (1, S, S, 3) float32."""
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].dtype != FLOAT:
        return False
    side = inputs[0].shape[1]
    return inputs[0].shape == (1, side, side, 3)


def _around(vertices: NDArray[np.float64]) -> Crop:
    """The square about a mesh, level by the outer corners of its eyes."""
    left, right = vertices[33], vertices[263]
    low, high = vertices[:, :2].min(axis=0), vertices[:, :2].max(axis=0)
    x, y = 0.5 * (low + high)
    angle = float(np.arctan2(right[1] - left[1], right[0] - left[0]))
    return Crop(float(x), float(y), max(NEXT_MARGIN * float((high - low).max()), 1.0), angle)
