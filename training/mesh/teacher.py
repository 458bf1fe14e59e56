"""The teacher of the dense branch: a face-landmark network that gives 468 vertices for an upright crop of one face.

It is MediaPipe's face mesh (arXiv 1907.06724) or any TFLite file with its interface: a float32 RGB crop in 0…1 of shape
(1, S, S, 3) in, 468 × 3 vertices in pixels of the crop and one logit that says whether a face is there out.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.errors import RetinaFaceEdgeError
from retinaface_edge.runtime.io.untrusted import read_file
from retinaface_edge.runtime.mesh.topology import topology
from retinaface_edge.runtime.ops.postprocess import Face
from retinaface_edge.runtime.spec import VERTICES

if TYPE_CHECKING:
    from PIL.Image import Image

FIRST_MARGIN, NEXT_MARGIN = 1.3, 1.5
"""The crop's side over the detector's box, then over the extent of the vertices that were found in it."""
LEAST_LOGIT = 2.0
"""Below this the teacher itself does not trust that it sees a face."""
TEACHER_BYTES = 64 << 20
MOST_VALUES = 64 << 20
"""Of all tensors together; MediaPipe's network has 4 million. A small file can ask for any amount of memory."""
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
    """The network, loaded. Raises `TeacherError` when the file is no such network."""

    def __init__(self, path: Path) -> None:
        try:
            content = read_file(path, TEACHER_BYTES)
        except OSError as error:
            raise TeacherError(f"the teacher {path} cannot be read ({error.strerror}); {NEXT_STEP}") from error
        self.digest = hashlib.sha256(content).hexdigest()
        self._interpreter = _interpreter(content, path)
        (source,) = self._interpreter.get_input_details()
        outputs = {int(np.prod(o["shape"])): o["index"] for o in self._interpreter.get_output_details()}
        shape = tuple(int(n) for n in source["shape"])
        if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or not {3 * VERTICES, 1} <= set(outputs):
            raise TeacherError(
                f"{path} takes {shape} and gives {sorted(outputs)} values; a teacher takes (1, S, S, 3) and gives "
                f"{3 * VERTICES} and 1; {NEXT_STEP}"
            )
        self.pixels = shape[1]
        self._input, self._vertices, self._logit = source["index"], outputs[3 * VERTICES], outputs[1]

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
        self._interpreter.set_tensor(self._input, np.ascontiguousarray(pixels[:, :, ::-1]) if mirror else pixels)
        self._interpreter.invoke()
        vertices = self._interpreter.get_tensor(self._vertices).reshape(VERTICES, 3).astype(np.float64)
        if mirror:
            vertices = vertices[topology().mirror] * (-1.0, 1.0, 1.0) + (self.pixels, 0.0, 0.0)
        return vertices, float(self._interpreter.get_tensor(self._logit).reshape(-1)[0])


def _around(vertices: NDArray[np.float64]) -> Crop:
    """The square about a mesh, level by the outer corners of its eyes."""
    left, right = vertices[33], vertices[263]
    low, high = vertices[:, :2].min(axis=0), vertices[:, :2].max(axis=0)
    x, y = 0.5 * (low + high)
    angle = float(np.arctan2(right[1] - left[1], right[0] - left[0]))
    return Crop(float(x), float(y), max(NEXT_MARGIN * float((high - low).max()), 1.0), angle)


def _interpreter(content: bytes, path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=content, num_threads=1)
        values = sum(math.prod(map(int, tensor["shape"])) for tensor in interpreter.get_tensor_details())
        if values > MOST_VALUES:
            raise TeacherError(f"{path} has tensors of {values:,} values, more than {MOST_VALUES:,}; {NEXT_STEP}")
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())[:80]
        raise TeacherError(f"{path} is not a TFLite network that runs here ({said}); {NEXT_STEP}") from error
    return interpreter
