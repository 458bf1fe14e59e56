"""What is timed, frame to faces: the artifacts of a bundle, and whatever else runs in the same measurement.

A contestant is a recipe that can be sent to another process and loads there. Loaded, it is one call from frame to
faces, and a clock that tells which part of the call the network took.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.backends import BACKENDS, Network, installed
from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.detector import Detector
from retinaface_edge.runtime.errors import BackendError
from retinaface_edge.runtime.ops.postprocess import RawOutput

from ..inference.network_under_test import Subject, subjects_of

Frame = NDArray[np.uint8]
Result = TypeVar("Result")

ARTIFACT, PEER, BASELINE = "artifact", "peer", "baseline"


Moment = tuple[float, float]
"""Seconds by the wall's clock, and of processor time that all threads of this process have used."""


def now() -> Moment:
    """This moment."""
    return time.perf_counter(), time.process_time()


class Clock:
    """When the network began and ended its last run."""

    def __init__(self) -> None:
        self.begin = self.end = (0.0, 0.0)

    def time(self, run: Callable[[], Result]) -> Result:
        """Run the network and note the time."""
        self.begin = now()
        result = run()
        self.end = now()
        return result


@dataclass(frozen=True)
class Loaded:
    """`detect` takes a frame, uint8 (h, w, 3), BGR unless `rgb`, and gives boxes (n, 4) in frame pixels and scores.

    `precision` is what it computes in, where that is not what the contestant's name says.
    """

    detect: Callable[[Frame], tuple[NDArray[np.float64], NDArray[np.float64]]]
    clock: Clock
    rgb: bool = False
    precision: str = ""


@dataclass(frozen=True)
class Contestant:
    """One thing to time. `load` gets the number of threads; it imports what it needs, and is picklable.

    `bytes` is the size of its files, 0 where it has none of its own; `digest` stands for them. `same_network` says that
    it computes the bundle's network.
    """

    name: str
    kind: str
    load: Callable[[int], Loaded] = field(repr=False)
    backend: str = ""
    precision: str = ""
    bytes: int = 0
    digest: str = ""
    same_network: bool = True


@dataclass(frozen=True)
class Absent:
    """A contestant that cannot run here, and why."""

    name: str
    reason: str


def contestants_of(
    bundle: Bundle, patterns: Sequence[str] = ("*",), kind: str = ARTIFACT, prefix: str = ""
) -> tuple[list[Contestant], list[Absent]]:
    """The artifacts of a bundle that this machine can run, by patterns as in a shell, and those that it cannot."""
    present: list[Contestant] = []
    absent: list[Absent] = []
    for subject in subjects_of(bundle, patterns):
        name = prefix + subject.name
        if subject.backend in installed():
            size = sum(map(len, subject.files))
            load = partial(load_subject, subject)
            present.append(Contestant(name, kind, load, subject.backend, subject.precision, size, subject.digest))
        elif subject.backend in BACKENDS:
            absent.append(Absent(name, f"needs {subject.backend}: pip install 'retinaface-edge[{subject.backend}]'"))
        else:
            absent.append(Absent(name, f"this version has no backend {subject.backend}"))
    return present, absent


def load_subject(subject: Subject, threads: int) -> Loaded:
    """A network under the bundle's contract, as the detector that users call."""
    clock = Clock()
    network = subject.load(threads)
    detector = Detector(subject.spec, TimedNetwork(network, clock))

    def detect(frame: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        faces = detector.detect(frame)
        return faces.boxes, faces.scores

    return Loaded(detect, clock, precision=getattr(network, "precision", ""))


def need(package: str) -> None:
    """Raise `BackendError` unless the package is installed."""
    if importlib.util.find_spec(package) is None:
        raise BackendError(f"needs {package}, which is not installed")


class TimedNetwork:
    """A network that notes when it ran."""

    def __init__(self, network: Network, clock: Clock) -> None:
        self._network, self._clock = network, clock
        self.grids = network.grids

    def run(self, image: NDArray[Any]) -> Sequence[RawOutput]:
        """As the network does."""
        return self._clock.time(lambda: self._network.run(image))
