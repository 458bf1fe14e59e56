"""Measures quantities on pictures: in this process, in others or on a cluster, and only what no cache holds yet.

    files → tasks → [cached: look up] → measure, in workers → [cached: keep] → measured pictures

A quantity is anything that can be measured on one picture: the faces that a network finds, sums over the tensors of two
networks, the errors of layers. All of them go through the same steps.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from retinaface_edge.runtime.errors import ImageError
from retinaface_edge.runtime.io.images import read_image
from retinaface_edge.runtime.io.picture_files import picture_files
from retinaface_edge.runtime.io.untrusted import PICTURE_BYTES, read_file

from ..errors import MeasurementError
from ..results import ImageSet, SkippedImage
from ..versions import environment
from .network_under_test import digest_of
from .open_picture import OpenPicture
from .result_cache import Arrays, ResultCache, Stored
from .workers import run

VERSION = "2"
"""Part of every key: raise it when the same network and picture would give another value."""

Value = TypeVar("Value", covariant=True)
Outcome = TypeVar("Outcome")


class Quantity(Protocol[Value]):
    """Something to measure on a picture. It can be sent to another process or machine."""

    @property
    def key(self) -> str:
        """A digest of all that decides the value, apart from the picture and the environment."""
        ...

    def measure(self, picture: OpenPicture) -> Arrays:
        """Measure it."""
        ...

    def value(self, arrays: Arrays) -> Value:
        """What the arrays of `measure` mean."""
        ...


@dataclass(frozen=True)
class Picture:
    """A picture file: its name in the result, its bytes and their SHA-256."""

    name: str
    content: bytes
    digest: str


@dataclass(frozen=True)
class Measured:
    """One picture, measured: `size` is (width, height) in pixels; `arrays` are by the quantities' keys."""

    name: str
    digest: str
    size: tuple[int, int]
    arrays: Mapping[str, Arrays]

    def value(self, quantity: Quantity[Value]) -> Value:
        """The value of a quantity that was measured."""
        return quantity.value(self.arrays[quantity.key])


@dataclass(frozen=True)
class Unreadable:
    """A picture that could not be read, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Task:
    """A picture, which quantities are to be measured on it (indices), and what is known of it already."""

    picture: Picture
    wanted: tuple[int, ...]
    known: Measured | None = None


Stage = Callable[[Iterable["Task | Unreadable"]], Iterator["Measured | Unreadable"]]
"""Gives one outcome for each task, in their order."""


def no_progress(outcomes: Iterable[Outcome], total: int) -> Iterable[Outcome]:
    """The outcomes as they are."""
    return outcomes


@dataclass(frozen=True)
class Execution:
    """How pictures are measured: a cache, if any; the number of processes, or the address of a Dask scheduler.

    `progress(outcomes, total)` gives the outcomes on, and may show how many of `total` have come.
    """

    cache: ResultCache | None = None
    workers: int = 1
    dask: str | None = None
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = no_progress


def measure_pictures(
    quantities: Sequence[Quantity[Any]], files: Mapping[str, Path], execution: Execution
) -> Iterator[Measured | Unreadable]:
    """Measure all quantities on the pictures `files` (name to path), in their order.

    Only pictures in progress are held in memory. Raises `MeasurementError` when a worker dies, or runs on a machine or
    packages unlike this one's.
    """
    stage: Stage = partial(_in_workers, quantities, execution)
    if execution.cache is not None:
        stage = cached(stage, quantities, execution.cache)
    every = tuple(range(len(quantities)))
    tasks = (
        one if isinstance(one, Unreadable) else Task(one, every)
        for one in (read_picture(name, path) for name, path in files.items())
    )
    yield from execution.progress(stage(tasks), len(files))


def cached(stage: Stage, quantities: Sequence[Quantity[Any]], cache: ResultCache) -> Stage:
    """`stage`, asked only for what `cache` does not hold; what it gives is kept."""

    def key(digest: str, quantity: Quantity[Any]) -> str:
        return digest_of(VERSION, json.dumps(environment(), sort_keys=True), digest, quantity.key)

    def look_up(task: Task | Unreadable) -> Task | Unreadable:
        if isinstance(task, Unreadable):
            return task
        picture = task.picture
        found = {index: cache.get(key(picture.digest, quantities[index])) for index in task.wanted}
        stored = {quantities[index].key: value for index, value in found.items() if value is not None}
        if not stored:
            return task
        size = next(iter(stored.values())).size
        known = Measured(picture.name, picture.digest, size, {name: value.arrays for name, value in stored.items()})
        return replace(task, wanted=tuple(i for i, value in found.items() if value is None), known=known)

    def keep(outcome: Measured | Unreadable) -> Measured | Unreadable:
        if isinstance(outcome, Measured):
            keys = {key(outcome.digest, quantity): quantity.key for quantity in quantities}
            new = {k: Stored(outcome.size, outcome.arrays[name]) for k, name in keys.items() if k not in cache}
            cache.put(new)
        return outcome

    return lambda tasks: map(keep, stage(map(look_up, tasks)))


def measure(quantities: Sequence[Quantity[Any]], task: Task) -> Measured | Unreadable:
    """Measure what the task asks for; everything but an unreadable picture is raised."""
    picture = task.picture
    try:
        opened = OpenPicture(read_image(Path(picture.name), picture.content))
    except ImageError as error:
        return Unreadable(picture.name, str(error))
    known = task.known.arrays if task.known else {}
    new = {quantities[index].key: quantities[index].measure(opened) for index in task.wanted}
    return Measured(picture.name, picture.digest, opened.size, {**known, **new})


def read_picture(name: str, path: Path) -> Picture | Unreadable:
    """The bytes of a picture file."""
    try:
        content = read_file(path, PICTURE_BYTES)
    except OSError as error:
        return Unreadable(name, f"{path} cannot be read ({error.strerror})")
    return Picture(name, content, hashlib.sha256(content).hexdigest())


def read_set(
    folder: Path, limit: int | None = None, warn: Callable[[str], None] = lambda text: None
) -> dict[str, Path]:
    """The pictures of a folder by their path below it; at most `limit`, spread evenly.

    `warn` is called for files that are not pictures. Raises `ImageError`.
    """
    files = picture_files([folder], keep_damaged=True)
    if files.skipped:
        warn(files.skipped_text)
    paths = list(files.pictures)
    if limit is not None and len(paths) > limit:
        paths = [paths[index * len(paths) // limit] for index in range(limit)]
    root = folder if folder.is_dir() else folder.parent
    return {path.relative_to(root).as_posix(): path for path in sorted(paths)}


def image_set(digests: Mapping[str, str], skipped: Sequence[Unreadable]) -> ImageSet:
    """What a result says of its pictures, whatever their order. `digests` (SHA-256) are by name.

    Raises `MeasurementError` when no picture could be read.
    """
    if skipped and not digests:
        raise MeasurementError(f"none of {len(skipped)} pictures can be read; the first: {skipped[0].reason}")
    digest = digest_of(*(f"{name}\0{digest}" for name, digest in sorted(digests.items())))
    named = sorted(skipped, key=lambda one: one.name)
    return ImageSet(len(digests), digest, tuple(SkippedImage(one.name, one.reason) for one in named))


def _in_workers(
    quantities: Sequence[Quantity[Any]], execution: Execution, tasks: Iterable[Task | Unreadable]
) -> Iterator[Measured | Unreadable]:
    here = environment()
    for there, outcome in run(_measure_there, quantities, tasks, _known, execution.workers, execution.dask):
        if there != here:
            differing = [key for key, value in here.items() if there.get(key) != value]
            raise MeasurementError(
                f"a worker differs from this machine in: {', '.join(differing) or 'installed packages'}; results from "
                "different machines are not mixed: give the workers the same packages and processor"
            )
        yield outcome


def _measure_there(
    quantities: Sequence[Quantity[Any]], task: Task | Unreadable
) -> tuple[dict[str, str], Measured | Unreadable]:
    """In a worker: the outcome, and the environment that it was found in."""
    return environment(), task if isinstance(task, Unreadable) else measure(quantities, task)


def _known(task: Task | Unreadable) -> tuple[dict[str, str], Measured | Unreadable] | None:
    """The outcome of a task that needs no worker."""
    if isinstance(task, Unreadable):
        return environment(), task
    return (environment(), task.known) if task.known and not task.wanted else None
