"""What a mesh costs: a frame with meshes against the same frame without, and the dense branch's network alone."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_edge.runtime import backends
from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.detector import Detector

from ..stats.bootstrap import paired_ratio
from .rounds import order
from .runners import Clock, Frame, TimedNetwork, now

FACES = 5
WARM_UP = 8
WITHOUT, WITH, PLAIN = "without", "with", "plain"
WALL, WORK = 0, 1


@dataclass(frozen=True)
class Mode:
    """One way to call a detector: of which artifact, and whether with meshes."""

    artifact: str
    kind: str
    detect: Callable[[Frame], object]


def frame_with_faces(frames: Sequence[Frame], faces: Sequence[int]) -> Frame | None:
    """The frame whose number of faces is nearest to five; None where no frame has one."""
    best = min(range(len(frames)), key=lambda index: (faces[index] == 0, abs(faces[index] - FACES)))
    return frames[best] if faces[best] else None


def mesh_costs(
    path: Path, artifacts: Sequence[tuple[str, str]], frame: Frame, threads: int, rounds: int, plain: Path | None = None
) -> list[dict[str, Any]]:
    """One row for each of `artifacts` (backend, precision) of the bundle at `path`, all measured in the same rounds.

    Call it in a process that is held to as many cores as there are `threads`. Milliseconds are medians by the clock.
    Without meshes, the artifact is loaded as for callers who never ask for one. `ratio` is the median with meshes over
    that without and its 95 % interval, on one core in processor time; `ratio_to_plain` is against the bundle `plain`.
    `branch_microseconds` is one batch through the branch's network, as it runs between the frames.
    """
    bundle = Bundle.load(path)
    modes: list[Mode] = []
    clocks: dict[str, Clock] = {}
    faces: dict[str, int] = {}
    for backend, precision in artifacts:
        name = bundle.mesh(backend, precision).name
        clocks[name] = Clock()
        dense = _dense_detector(bundle, backend, precision, threads, clocks[name])
        faces[name] = len(dense.detect(frame, mesh=True))
        modes.append(Mode(name, WITHOUT, Detector.load(bundle, backend, precision, threads).detect))
        modes.append(Mode(name, WITH, partial(dense.detect, mesh=True)))
        if plain:
            modes.append(Mode(name, PLAIN, Detector.load(plain, backend, precision, threads).detect))
    times = np.empty((len(modes), WARM_UP + rounds, 2))
    branch = np.empty((len(modes), WARM_UP + rounds))
    gc.collect()
    gc.freeze()  # as `latency` does: what is loaded stays
    for turn in range(WARM_UP + rounds):
        for index in order(len(modes), turn):
            begin = now()
            modes[index].detect(frame)
            times[index, turn] = np.subtract(now(), begin)
            clock = clocks[modes[index].artifact]
            branch[index, turn] = clock.end[WALL] - clock.begin[WALL]
    gc.unfreeze()
    times, branch = times[:, WARM_UP:], branch[:, WARM_UP:]
    index_of = {(mode.artifact, mode.kind): index for index, mode in enumerate(modes)}
    compared = WORK if threads == 1 else WALL
    rows = []
    for name in clocks:
        without, with_meshes = (times[index_of[name, kind]] for kind in (WITHOUT, WITH))
        row: dict[str, Any] = {
            "name": name,
            "faces": faces[name],
            "without_ms": float(np.median(without[:, WALL])) * 1e3,
            "with_ms": float(np.median(with_meshes[:, WALL])) * 1e3,
            "ratio": list(paired_ratio(with_meshes[:, compared], without[:, compared])),
            "branch_microseconds": float(np.median(branch[index_of[name, WITH]])) * 1e6,
        }
        if plain:
            other = times[index_of[name, PLAIN]]
            row["plain_ms"] = float(np.median(other[:, WALL])) * 1e3
            row["ratio_to_plain"] = list(paired_ratio(with_meshes[:, compared], other[:, compared]))
        rows.append(row)
    return rows


def _dense_detector(bundle: Bundle, backend: str, precision: str, threads: int, clock: Clock) -> Detector:
    """A detector as `Detector.load` gives it, whose dense branch is timed."""
    spec = bundle.spec
    assert spec.mesh is not None
    detector, dense = (
        [bundle.read(file) for file in artifact.files]
        for artifact in (bundle.artifact(backend, precision), bundle.mesh(backend, precision))
    )
    network = backends.load(backend, spec.with_features, detector, threads)
    branch = TimedNetwork(backends.load(backend, spec.mesh, dense, threads), clock)
    return Detector(spec, network, lambda: (network, branch))
