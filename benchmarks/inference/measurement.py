"""The measurement of one picture: what every network makes of it. Runs in this process, another, or on a cluster."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.backends import Network
from retinaface_edge.runtime.errors import ImageError
from retinaface_edge.runtime.io.images import read_image
from retinaface_edge.runtime.ops.letterbox import letterbox, letterbox_for
from retinaface_edge.runtime.ops.postprocess import Faces, postprocess

from ..drift.tensor_metrics import as_real, output_sums
from .network_under_test import MeasurementError, Subject, digest_of, environment
from .result_cache import ResultCache
from .scales import INPUT, detect_in_views
from .workers import run

VERSION = "1"
"""Part of every key: raise it when the same artifact and picture would give another result."""
LEAST_SCORE = 0.02
"""Detections below it are not kept: they are beyond the precision–recall curve's useful end."""
NETWORKS_KEPT = 16

Pair = tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """What to measure on every picture: faces by every subject at a scale, and the tensors of some pairs.

    `pairs` are (reference, artifact), as indices of `subjects`.
    """

    subjects: tuple[Subject, ...]
    pairs: tuple[Pair, ...] = ()
    scale: str = INPUT

    def keys(self, image_digest: str) -> tuple[list[str], list[str]]:
        """Where the results of one picture are kept: one key a subject, one a pair."""
        common = (VERSION, json.dumps(environment(), sort_keys=True), image_digest)
        faces = [digest_of("faces", self.scale, subject.digest, *common) for subject in self.subjects]
        tensors = [
            digest_of("tensors", self.subjects[r].digest, self.subjects[a].digest, *common) for r, a in self.pairs
        ]
        return faces, tensors


@dataclass(frozen=True)
class Task:
    """One picture as its file's bytes, and which subjects and pairs of the plan have no result yet."""

    name: str
    content: bytes
    faces: tuple[int, ...]
    pairs: tuple[int, ...]


@dataclass(frozen=True)
class Measured:
    """What came of a task: rows of faces by subject, sums by pair, the size; or the reason why there is nothing."""

    name: str
    faces: Mapping[int, NDArray[np.float64]]
    sums: Mapping[int, NDArray[np.float64]]
    environment: Mapping[str, str]
    error: str = ""


@dataclass(frozen=True)
class Result:
    """One picture, measured: (width, height), faces by subject in the order of the plan, sums by pair."""

    name: str
    size: tuple[int, int]
    faces: tuple[Faces, ...]
    sums: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True)
class Unreadable:
    """A picture that could not be read, and why."""

    name: str
    reason: str


class Measurement:
    """The results of all pictures of `files` (name to path), in their order; `len` is their number.

    Nothing is kept in memory but what is on its way; results found in `cache` are not measured again. Iterate once.
    """

    def __init__(
        self, plan: Plan, files: Mapping[str, Path], cache: ResultCache, workers: int = 1, dask: str | None = None
    ) -> None:
        self._plan, self._files, self._cache = plan, files, cache
        self._workers, self._dask = workers, dask
        self._order: deque[Unreadable | str] = deque()
        self.image_digests: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[Result | Unreadable]:
        for measured in run(measure, self._plan, self._tasks(), self._workers, self._dask):
            yield from self._known(until=measured.name)
            yield self._keep(measured)
        yield from self._known(until="")

    def _tasks(self) -> Iterator[Task]:
        for name, path in self._files.items():
            try:
                content = path.read_bytes()
            except OSError as error:
                self._order.append(Unreadable(name, f"{path} cannot be read ({error.strerror})"))
                continue
            digest = hashlib.sha256(content).hexdigest()
            self.image_digests[name] = digest
            face_keys, tensor_keys = self._plan.keys(digest)
            missing = self._cache.missing([*face_keys, *tensor_keys])
            self._order.append(name)
            if missing:
                yield Task(
                    name,
                    content,
                    tuple(index for index, key in enumerate(face_keys) if key in missing),
                    tuple(index for index, key in enumerate(tensor_keys) if key in missing),
                )

    def _known(self, until: str) -> Iterator[Result | Unreadable]:
        """What needs no measuring, up to the picture that has just been measured."""
        while self._order:
            known = self._order.popleft()
            if known == until:
                return
            yield known if isinstance(known, Unreadable) else self._read(known, self.image_digests[known])

    def _keep(self, measured: Measured) -> Result | Unreadable:
        digest = self.image_digests[measured.name]
        if measured.error:
            return Unreadable(measured.name, measured.error)
        if dict(measured.environment) != environment():
            differing = [k for k, v in environment().items() if measured.environment.get(k) != v]
            raise MeasurementError(
                f"a worker differs from this machine in: {', '.join(differing) or 'installed packages'}; figures of "
                "unlike machines are not mixed: give the workers the same packages and processor"
            )
        face_keys, tensor_keys = self._plan.keys(digest)
        self._cache.put(
            {face_keys[index]: rows for index, rows in measured.faces.items()}
            | {tensor_keys[index]: sums for index, sums in measured.sums.items()}
        )
        return self._read(measured.name, digest)

    def _read(self, name: str, digest: str) -> Result:
        face_keys, tensor_keys = self._plan.keys(digest)
        rows = [self._cache[key] for key in face_keys]
        width, height = rows[0][0, :2].astype(int).tolist()
        return Result(name, (width, height), tuple(map(_faces, rows)), tuple(self._cache[key] for key in tensor_keys))


def measure(plan: Plan, task: Task) -> Measured:
    """Run what `task` asks for. A picture that cannot be read gives `error`; everything else is raised."""
    try:
        frame = read_image(Path(task.name), task.content)
    except ImageError as error:
        return Measured(task.name, {}, {}, environment(), str(error))
    spec = plan.subjects[0].spec
    height, width = frame.shape[:2]
    whole = plan.scale == INPUT
    in_pairs = {index for pair in task.pairs for index in plan.pairs[pair]}
    faces: dict[int, NDArray[np.float64]] = {}
    real: dict[int, list[NDArray[np.float64]]] = {}
    image = np.empty(spec.input_shape, np.uint8)
    placement = letterbox_for(spec, width, height)
    letterbox(spec, placement, frame, image)
    for index in sorted(in_pairs | (set(task.faces) if whole else set())):
        network = _network(plan.subjects[index])
        outputs = network.run(image)
        if whole and index in task.faces:
            faces[index] = _rows(width, height, postprocess(spec, outputs, network.grids, placement, LEAST_SCORE))
        if index in in_pairs:
            real[index] = as_real(outputs, network.grids)
    if not whole:
        for index in task.faces:
            found = detect_in_views(spec, _network(plan.subjects[index]), frame, plan.scale, LEAST_SCORE)
            faces[index] = _rows(width, height, found)
    sums = {pair: output_sums(spec, real[plan.pairs[pair][0]], real[plan.pairs[pair][1]]) for pair in task.pairs}
    return Measured(task.name, faces, sums, environment())


_networks: OrderedDict[str, Network] = OrderedDict()
"""In a worker: the networks loaded so far, by digest, those used last at the end."""


def _network(subject: Subject) -> Network:
    if subject.digest not in _networks:
        while len(_networks) >= NETWORKS_KEPT:
            _networks.popitem(last=False)
        _networks[subject.digest] = subject.load()
    _networks.move_to_end(subject.digest)
    return _networks[subject.digest]


def _rows(width: int, height: int, faces: Faces) -> NDArray[np.float64]:
    """Faces as rows (score, box, landmarks), after a first row that begins with the picture's width and height."""
    rows = np.zeros((len(faces) + 1, 15))
    rows[0, :2] = width, height
    rows[1:, 0], rows[1:, 1:5] = faces.scores, faces.boxes
    rows[1:, 5:] = faces.landmarks.reshape(-1, 10)
    return rows


def _faces(rows: NDArray[np.float64]) -> Faces:
    return Faces(rows[1:, 0], rows[1:, 1:5], rows[1:, 5:].reshape(-1, 5, 2))


def named_files(paths: Iterable[Path], root: Path) -> dict[str, Path]:
    """Pictures by their path below `root`, sorted: the names that results are reported under."""
    return {path.relative_to(root).as_posix(): path for path in sorted(paths)}


def set_digest(images: Mapping[str, str]) -> str:
    """SHA-256 over the names and digests of a set's pictures, whatever their order."""
    return digest_of(*(f"{name}\0{digest}" for name, digest in sorted(images.items())))
