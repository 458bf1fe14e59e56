"""Cases for the C headers: generated frames and raw outputs, what NumPy makes of them, and the driver in C."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retinaface_edge.runtime import Faces, Spec
from retinaface_edge.runtime.c.generate import c_files
from retinaface_edge.runtime.contract import BoxCoding
from retinaface_edge.runtime.ops.letterbox import letterbox, letterbox_for
from retinaface_edge.runtime.ops.postprocess import UNBOUNDED, Bounds, QuantParams, postprocess

SCORES = ("score", "object")
DRIVER = Path(__file__).parent / "c" / "driver.c"
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")
STRICT = ("-std=c99", *WARNINGS)
COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
TYPES = {np.dtype(np.float32): 0, np.dtype(np.int8): 1, np.dtype(np.uint8): 2}


@dataclass(frozen=True)
class FrameCase:
    """`memory` holds the frame: `pixels` is a view of it."""

    memory: np.ndarray
    pixels: np.ndarray
    rgb: bool

    def expected(self, spec: Spec) -> np.ndarray:
        out = np.full(spec.input_shape, 77, np.uint8)
        height, width = self.pixels.shape[:2]
        letterbox(spec, letterbox_for(spec, width, height), self.pixels, out, self.rgb)
        return out

    def encoded(self) -> bytes:
        height, width = self.pixels.shape[:2]
        colour = 2 if self.pixels.ndim == 2 else int(self.rgb)
        offset = self.pixels.__array_interface__["data"][0] - self.memory.__array_interface__["data"][0]
        numbers = (1, width, height, colour, *self.pixels.strides[:2], offset, self.memory.nbytes)
        return struct.pack("=8i", *numbers) + self.memory.tobytes()

    def encoded_for_crop(self, size: int, landmarks: np.ndarray) -> bytes:
        """The frame, to be cropped around `landmarks` (5, 2)."""
        height, width = self.pixels.shape[:2]
        colour = 2 if self.pixels.ndim == 2 else int(self.rgb)
        offset = self.pixels.__array_interface__["data"][0] - self.memory.__array_interface__["data"][0]
        head = struct.pack("=8i", 3, width, height, colour, *self.pixels.strides[:2], offset, size)
        return head + landmarks.tobytes() + struct.pack("=i", self.memory.nbytes) + self.memory.tobytes()


@dataclass(frozen=True)
class OutputCase:
    frame_size: tuple[int, int]
    outputs: Sequence[np.ndarray]
    quant_params: Sequence[QuantParams]
    score_threshold: float
    iou_threshold: float

    def expected(self, spec: Spec, bounds: Bounds = UNBOUNDED) -> Faces:
        placement = letterbox_for(spec, *self.frame_size)
        thresholds = self.score_threshold, self.iou_threshold
        return postprocess(spec, self.outputs, self.quant_params, placement, *thresholds, bounds)

    def encoded(self, spec: Spec, bounds: Bounds = UNBOUNDED) -> bytes:
        anchors = len(spec.anchors)
        head = struct.pack("=5i", 2, *self.frame_size, bounds.max_candidates or anchors, bounds.max_faces or anchors)
        parts = [head, struct.pack("=2d", self.score_threshold, self.iou_threshold)]
        for output, quant in zip(self.outputs, self.quant_params, strict=True):
            parts.append(struct.pack("=2id", TYPES[output.dtype], quant.zero_point, quant.scale))
            parts += [struct.pack("=i", output.nbytes), output.tobytes()]
        return b"".join(parts)


def frame_case(rng: np.random.Generator, spec: Spec) -> FrameCase:
    """A frame of a random size (whole-number ratios often), colour order and memory layout."""
    if rng.random() < 0.4:
        width, height = (int(side * rng.integers(1, 5)) for side in (spec.width, spec.height))
    else:
        width, height = (int(side) for side in np.exp(rng.uniform(0, np.log(400), 2)))
    kind = int(rng.integers(7))
    memory = rng.integers(0, 256, (height + 3, width + 5, 3), dtype=np.uint8)
    if kind == 0:
        memory = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        return FrameCase(memory, memory, False)
    if kind == 1:
        return FrameCase(memory, memory[2 : 2 + height, 4 : 4 + width], bool(rng.integers(2)))
    if kind == 2:
        return FrameCase(memory, memory[: height : 1 + height // 7, : width : 1 + width // 9], bool(rng.integers(2)))
    if kind == 3:
        return FrameCase(memory, memory[height::-1, width::-1], bool(rng.integers(2)))
    if kind == 4:
        return FrameCase(memory, memory[:height, :width, 1], False)
    if kind == 5:
        grey = rng.integers(0, 256, (height, width), dtype=np.uint8)
        return FrameCase(grey, grey, False)
    bgra = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    return FrameCase(bgra, bgra[:, :, :3], bool(rng.integers(2)))


def output_case(rng: np.random.Generator, spec: Spec) -> OutputCase:
    """Raw outputs of a random type; from no candidate to all of them, scores that tie, values that are damaged."""
    dtype = np.dtype(rng.choice([np.float32, np.int8, np.uint8]))
    density = rng.choice([0.0, 0.001, 0.05, 1.0])
    outputs, quant_params = [], []
    for output in spec.outputs:
        if dtype == np.float32:
            values = rng.normal(0, 3 if output.head in SCORES else 1, output.shape).astype(np.float32)
            if output.head == "box" and spec.box_coding is BoxCoding.DISTANCES:
                values += np.float32(2.0)  # most have an area, some have none
            if output.head == "score":
                values = np.round(values, int(rng.integers(0, 3)))  # ties
                values[rng.random(output.shape) >= density] = -9
            if output.head == "object":
                values = np.round(values, 1)
            damaged = rng.random(output.shape) < rng.choice([0.0, 0.01])
            values[damaged] = rng.choice([np.nan, np.inf, -np.inf, 1e30, -501.0], int(damaged.sum()))
            quant = QuantParams()
        else:
            low, high = (-128, 127) if dtype == np.int8 else (0, 255)
            values = rng.integers(low, high + 1, output.shape).astype(dtype)
            if output.head == "score":
                values[rng.random(output.shape) >= density] = low
            zero_point = int(rng.integers(low, high + 1))
            if output.head == "box" and spec.box_coding is BoxCoding.DISTANCES:
                zero_point = low + int(rng.integers(0, 64))
            quant = QuantParams(float(rng.choice([0.0125, 0.05, 0.11])), zero_point)
        outputs.append(values)
        quant_params.append(quant)
    frame_size = (int(rng.integers(1, 3000)), int(rng.integers(1, 3000)))
    thresholds = rng.choice([0.0, 0.02, 0.3, 0.5, 0.9, 1.0]), rng.choice([0.0, 0.3, 0.4, 0.7, 1.0])
    return OutputCase(frame_size, outputs, quant_params, float(thresholds[0]), float(thresholds[1]))


def compile_driver(spec: Spec, folder: Path, compiler: str, *flags: str, standard: str = "c99") -> Path:
    """The driver for one spec, as C or C++. Fails with the compiler's own words."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in c_files(spec).items():
        (folder / name).write_bytes(content)
    binary = folder / "driver"
    language = ["-x", "c++" if "++" in standard else "c", f"-std={standard}"]
    linked = [] if "-fsyntax-only" in flags else ["-lm", "-o", str(binary)]  # clang warns of what it does not use
    command = [compiler, *language, *WARNINGS, *flags, f"-I{folder}", str(DRIVER), *linked]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return binary


def run_driver(command: Sequence[str], cases: bytes) -> bytes:
    result = subprocess.run(command, input=cases, capture_output=True)
    assert result.returncode == 0, result.stderr.decode(errors="replace")
    return result.stdout


def read_faces(stream: memoryview, position: int, landmarks: int = 5) -> tuple[int, np.ndarray, int]:
    """Count (negative for an error), faces (n, 5 + 2 * landmarks) and the next position."""
    columns = 5 + 2 * landmarks
    (count,) = struct.unpack_from("=i", stream, position)
    faces = np.frombuffer(stream, np.float64, max(count, 0) * columns, position + 4).reshape(-1, columns)
    return count, faces, position + 4 + faces.nbytes


def as_rows(faces: Faces) -> np.ndarray:
    """Faces as the C struct has them: (n, 5 + 2 * landmarks)."""
    landmarks = faces.landmarks.reshape(len(faces), 2 * faces.landmarks.shape[1])
    return np.concatenate([faces.scores[:, None], faces.boxes, landmarks], axis=1)
