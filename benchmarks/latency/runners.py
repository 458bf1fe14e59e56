"""Runners: what is timed, each from frame to faces. The artifacts of a bundle are runners.

A `Runner` can be sent to another process and is loaded there. A `LoadedRunner` is one call from frame to faces, and a
clock that tells which part of the call the network took.
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

from retinaface_edge.runtime.artifact import ArtifactId
from retinaface_edge.runtime.backends import Network, installed
from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.detector import Detector
from retinaface_edge.runtime.errors import BackendError
from retinaface_edge.runtime.ops.postprocess import RawOutput

from ..inference.network_under_test import NetworkUnderTest, networks_of
from .result import Absent, RunnerKind

Frame = NDArray[np.uint8]
Result = TypeVar("Result")

Moment = tuple[float, float]
"""Seconds by the wall clock, and of processor time that all threads of this process have used."""


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
class LoadedRunner:
    """`detect` takes a frame, uint8 (h, w, 3), BGR unless `rgb`, and gives boxes (n, 4) in frame pixels and scores.

    `precision` is what it computes in, where that is not what the runner's name says.
    """

    detect: Callable[[Frame], tuple[NDArray[np.float64], NDArray[np.float64]]]
    clock: Clock
    rgb: bool = False
    precision: str = ""


@dataclass(frozen=True)
class Runner:
    """One thing to time. `load` gets the number of threads; it imports what it needs, and is picklable.

    `artifact` is set where it runs an artifact of a bundle. `size_bytes` is 0 where it has no files of its own, and
    `digest` is SHA-256 over them. `same_network` says that it computes the bundle's network.
    """

    name: str
    kind: RunnerKind
    load: Callable[[int], LoadedRunner] = field(repr=False)
    backend: str = ""
    precision: str = ""
    artifact: ArtifactId | None = None
    size_bytes: int = 0
    digest: str | None = None
    same_network: bool = True


def runners_of(
    bundle: Bundle, patterns: Sequence[str] = ("*",), kind: RunnerKind = RunnerKind.ARTIFACT, prefix: str = ""
) -> tuple[list[Runner], list[Absent]]:
    """The artifacts of a bundle that this machine can run, by shell patterns over their names, and those it cannot."""
    present: list[Runner] = []
    absent: list[Absent] = []
    for network in networks_of(bundle, patterns):
        name, artifact = prefix + network.name, network.artifact
        if artifact is None:
            absent.append(Absent(name, f"this version cannot run {network.name}"))
        elif artifact.backend.value not in installed():
            backend = artifact.backend.value
            absent.append(Absent(name, f"needs {backend}: pip install 'retinaface-edge[{backend}]'"))
        else:
            load, size = partial(load_network, network), sum(map(len, network.files))
            backend, precision = artifact.backend.value, artifact.precision.value
            present.append(Runner(name, kind, load, backend, precision, artifact, size, network.digest))
    return present, absent


def load_network(network: NetworkUnderTest, threads: int) -> LoadedRunner:
    """A network under the bundle's contract, as the detector that users call."""
    clock = Clock()
    loaded = network.load(threads)
    detector = Detector(network.spec, TimedNetwork(loaded, clock))

    def detect(frame: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        faces = detector.detect(frame)
        return faces.boxes, faces.scores

    return LoadedRunner(detect, clock, precision=getattr(loaded, "precision", ""))


def require(package: str) -> None:
    """Raise `BackendError` unless the package is installed."""
    if importlib.util.find_spec(package) is None:
        raise BackendError(f"needs {package}, which is not installed")


class TimedNetwork:
    """A network that notes when it ran."""

    def __init__(self, network: Network, clock: Clock) -> None:
        self._network, self._clock = network, clock
        self.quant_params = network.quant_params

    def run(self, image: NDArray[Any]) -> Sequence[RawOutput]:
        """As the network does."""
        return self._clock.time(lambda: self._network.run(image))
