"""What the dense branch learns from: descriptions of faces by a frozen detector, and the teacher's vertices for them.

Training samples come from canvases that augmentation makes of the photographs (`augment.py`): every candidate of the
detector that lies on a face is one more sample of it.
Validation samples are the photographs as they are, at the letterboxed size that the runtime would give the detector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.backends import Network
from retinaface_edge.runtime.mesh.branch import describe, relative
from retinaface_edge.runtime.ops.letterbox import letterbox, letterbox_for
from retinaface_edge.runtime.ops.postprocess import Faces, postprocess
from retinaface_edge.runtime.spec import VERTICES, Spec

from ..errors import TrainingError
from .augment import Canvas, Photograph, canvas
from .teacher_labels import Progress, read_arrays, write_arrays

MOST_PER_FACE = 3
"""Most samples taken of one face of one canvas: its best candidate, and others at random."""
FURTHEST, SMALLEST, LARGEST = 0.3, 0.55, 1.6
"""A box belongs to a mesh whose middle is at most so many box sizes away, and whose extent is so many box sizes."""
EXTENT, SIDE = 1.5, 32
"""The square that the pixel loss looks at, in box sizes and in pixels."""
CHUNK = 100
"""Canvases whose samples are kept in one file of the cache."""

_Rows = tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Samples:
    """`described` (n, inputs) and `vertices` (n, 468, 3) relative to the box; `sizes` (n,) √(box area).

    Sizes are in pixels of the detector's input, float32; the others are float32, or float16 where there are many.
    """

    described: NDArray[np.floating[Any]]
    vertices: NDArray[np.floating[Any]]
    sizes: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.sizes)


@dataclass(frozen=True, eq=False)
class Pictured:
    """Descriptions (n, inputs) float32 of faces, and `pictures` (n, side, side, 3) uint8 RGB of `EXTENT` boxes each."""

    described: NDArray[np.float32]
    pictures: NDArray[np.uint8]


@dataclass(frozen=True)
class Canvases:
    """How many augmented canvases to draw, from which seed, and where to keep what was seen on them.

    One file for `CHUNK` canvases is kept in the folder `cache`, so that an interrupted run resumes.
    `key` must differ between photographs and between networks. Without `cache` nothing is kept.
    """

    count: int
    seed: int
    cache: Path | None = None
    key: str = ""

    def entry(self, start: int) -> Path | None:
        """The file of the chunk of canvases that begins with number `start`."""
        if self.cache is None:
            return None
        count = min(CHUNK, self.count - start)
        name = hashlib.sha256(f"{self.key} {self.seed} {start} {count}".encode()).hexdigest()
        return self.cache / f"{name}.npz"


def training_samples(
    photographs: Sequence[Photograph],
    spec: Spec,
    networks: Sequence[Network],
    canvases: Canvases,
    progress: Progress,
) -> Samples:
    """Samples of augmented canvases; the same for the same photographs, networks and seed. The networks take turns."""
    starts = range(0, canvases.count, CHUNK)
    chunks: list[_Rows] = []
    with ThreadPoolExecutor(1, "canvas") as pool:  # the next canvas is drawn while the network runs

        def rows_from(start: int) -> Iterator[_Rows]:
            def draw(index: int) -> tuple[np.random.Generator, Canvas]:
                random = np.random.default_rng((canvases.seed, index))
                return random, canvas(photographs, spec.width, spec.height, random)

            end = min(start + CHUNK, canvases.count)
            ahead = pool.submit(draw, start)
            for index in range(start, end):
                random, drawn = ahead.result()
                if index + 1 < end:
                    ahead = pool.submit(draw, index + 1)
                yield from _of_canvas(spec, networks[index % len(networks)], drawn, random)

        for start in progress(starts):
            chunks.append(_kept(canvases.entry(start), partial(rows_from, start)))
    return _joined(chunks)


def pictured_samples(
    photographs: Sequence[Photograph], spec: Spec, network: Network, canvases: int, seed: int
) -> Pictured:
    """Faces of `canvases` canvases with what they look like, for the pixel loss, which needs no teacher."""
    from PIL import Image

    described, pictures = [], []
    for index in range(canvases):
        random = np.random.default_rng((seed, index))
        drawn = canvas(photographs, spec.width, spec.height, random)
        outputs, first = network.run(drawn.pixels[np.newaxis]), len(spec.outputs)
        placement = letterbox_for(spec, spec.width, spec.height)
        faces = postprocess(spec, outputs[:first], network.quant_params[:first], placement)
        chosen, _ = _chosen(faces, drawn.meshes, random)
        boxes = faces.boxes[chosen]
        described.append(describe(spec, outputs[first:], network.quant_params[first:], boxes, faces.landmarks[chosen]))
        picture = Image.fromarray(np.ascontiguousarray(drawn.pixels[:, :, ::-1]))
        for x1, y1, x2, y2 in boxes:
            half = 0.5 * EXTENT * float(np.sqrt((x2 - x1) * (y2 - y1)))
            x, y = 0.5 * (x1 + x2), 0.5 * (y1 + y2)
            region = (SIDE, SIDE), Image.Transform.EXTENT, (x - half, y - half, x + half, y + half)
            pictures.append(np.asarray(picture.transform(*region, Image.Resampling.BILINEAR)))
    return Pictured(np.concatenate(described), np.array(pictures, np.uint8).reshape(-1, SIDE, SIDE, 3))


def validation_samples(
    photographs: Sequence[Photograph], spec: Spec, network: Network, progress: Progress = iter
) -> Samples:
    """One sample for each face that the detector finds in the photographs as they are."""
    rows = []
    image = np.empty(spec.input_shape, np.uint8)
    for photograph in progress(photographs):
        frame = np.asarray(photograph.picture)
        placement = letterbox_for(spec, frame.shape[1], frame.shape[0])
        letterbox(spec, placement, frame, image, rgb=True)
        outputs = network.run(image)
        first = len(spec.outputs)
        unscaled = letterbox_for(spec, spec.width, spec.height)
        faces = postprocess(spec, outputs[:first], network.quant_params[:first], unscaled)
        meshes = photograph.meshes / (placement.scale_x, placement.scale_y, placement.scale_x)
        found = np.array([mesh_of(box, meshes) for box in faces.boxes], np.intp)
        chosen = np.flatnonzero(found >= 0)
        if len(chosen):
            rows.append(_row(spec, network, outputs[first:], faces, chosen, meshes[found[chosen]]))
    return _joined(rows)


def _of_canvas(spec: Spec, network: Network, drawn: Canvas, random: np.random.Generator) -> Iterator[_Rows]:
    outputs, first = network.run(drawn.pixels[np.newaxis]), len(spec.outputs)
    placement = letterbox_for(spec, spec.width, spec.height)
    # With a threshold of 1 nothing is suppressed: all candidates, best first.
    candidates = postprocess(spec, outputs[:first], network.quant_params[:first], placement, 0.5, 1.0)
    chosen, meshes = _chosen(candidates, drawn.meshes, random)
    if len(chosen):
        yield _row(spec, network, outputs[first:], candidates, chosen, meshes)


def _kept(entry: Path | None, make: Callable[[], Iterator[_Rows]]) -> _Rows:
    """The rows in the file `entry`, or those of `make`, joined, in half precision, and written there."""
    if known := read_arrays(entry, "described", "vertices", "sizes"):
        return known[0], known[1], known[2]
    rows = list(make())
    if not rows:
        return np.zeros((0, 0), np.float16), np.zeros((0, VERTICES, 3), np.float16), np.zeros(0, np.float32)
    described, vertices, sizes = (np.concatenate(part) for part in zip(*rows, strict=True))
    result = described.astype(np.float16), vertices.astype(np.float16), sizes
    if entry is not None:
        write_arrays(entry, described=result[0], vertices=result[1], sizes=result[2])
    return result


def _chosen(
    candidates: Faces, meshes: NDArray[np.float64], random: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Which candidates to take, and the mesh of each: for every mesh the best, and others at random."""
    found = np.array([mesh_of(box, meshes) for box in candidates.boxes], np.intp)
    chosen: list[int] = []
    for mesh in range(len(meshes)):
        on_it = np.flatnonzero(found == mesh)
        chosen += on_it[:1].tolist()
        chosen += random.permutation(on_it[1:])[: MOST_PER_FACE - 1].tolist()
    index = np.array(chosen, np.intp)
    return index, meshes[found[index]]


def mesh_of(box: NDArray[np.float64], meshes: NDArray[np.float64]) -> int:
    """The mesh that the box is of; −1 when it is of none."""
    if not len(meshes):
        return -1
    size = np.sqrt(np.prod(box[2:] - box[:2]))
    flat = meshes[:, :, :2]
    distance = np.linalg.norm(flat.mean(axis=1) - 0.5 * (box[:2] + box[2:]), axis=1) / size
    nearest = int(distance.argmin())
    extent = float((flat[nearest].max(axis=0) - flat[nearest].min(axis=0)).max()) / size
    return nearest if distance[nearest] < FURTHEST and SMALLEST < extent < LARGEST else -1


def _row(
    spec: Spec,
    network: Network,
    features: Sequence[Any],
    faces: Faces,
    chosen: NDArray[np.intp],
    meshes: NDArray[np.float64],
) -> _Rows:
    boxes, landmarks = faces.boxes[chosen], faces.landmarks[chosen]
    quant_params = network.quant_params[len(spec.outputs) :]
    described = describe(spec, features, quant_params, boxes, landmarks)
    sizes = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    return described, relative(boxes, meshes).astype(np.float32), sizes.astype(np.float32)


def _joined(rows: Sequence[_Rows]) -> Samples:
    filled = [row for row in rows if len(row[2])]
    if not filled:
        raise TrainingError("the detector finds none of the faces again; give a checkpoint that detects faces")
    described, vertices, sizes = zip(*filled, strict=True)
    return Samples(np.concatenate(described), np.concatenate(vertices), np.concatenate(sizes))


def splits(samples: Samples, parts: int, random: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    """The indices of all samples in random order, in `parts`-sized batches; a last, smaller one is left out."""
    order = random.permutation(len(samples))
    for start in range(0, len(order) - parts + 1, parts):
        yield order[start : start + parts]
