"""What a mesh costs: a frame with meshes against the same frame without, and the dense branch's network alone."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime import backends
from retinaface_edge.runtime.artifact import ArtifactId
from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.detector import Detector

from ..stats.bootstrap import paired_ratio
from .result import MeshCost
from .rounds import order
from .runners import Clock, Frame, TimedNetwork, now

FACES = 5
WARM_UP = 8
WITHOUT, WITH, PLAIN = "without", "with", "plain"
WALL, WORK = 0, 1


@dataclass(frozen=True)
class Mode:
    """One way to call a detector: of which artifact, and whether with meshes."""

    artifact: ArtifactId
    kind: str
    detect: Callable[[Frame], object]


def frame_with_faces(frames: Sequence[Frame], faces: Sequence[int]) -> Frame | None:
    """The frame whose number of faces is nearest to five; None where no frame has one."""
    best = min(range(len(frames)), key=lambda index: (faces[index] == 0, abs(faces[index] - FACES)))
    return frames[best] if faces[best] else None


def mesh_costs(
    path: Path, artifacts: Sequence[ArtifactId], frame: Frame, threads: int, rounds: int, plain: Path | None = None
) -> list[MeshCost]:
    """The costs for each of `artifacts` of the bundle at `path`, all measured in the same rounds.

    Call it in a process pinned to as many cores as there are `threads`. Without meshes, the artifact is loaded as
    for callers who never ask for one. `plain` is a bundle without a dense branch to compare with as well.
    """
    bundle = Bundle.load(path)
    modes: list[Mode] = []
    clocks = {artifact: Clock() for artifact in artifacts}
    faces: dict[ArtifactId, int] = {}
    for artifact, clock in clocks.items():
        backend, precision = artifact.backend.value, artifact.precision.value
        dense = _dense_detector(bundle, artifact, threads, clock)
        faces[artifact] = len(dense.detect(frame, mesh=True))
        modes.append(Mode(artifact, WITHOUT, Detector.load(bundle, backend, precision, threads).detect))
        modes.append(Mode(artifact, WITH, partial(dense.detect, mesh=True)))
        if plain:
            modes.append(Mode(artifact, PLAIN, Detector.load(plain, backend, precision, threads).detect))
    times, branch = _timed(modes, clocks, frame, rounds)
    index_of = {(mode.artifact, mode.kind): index for index, mode in enumerate(modes)}
    compared = WORK if threads == 1 else WALL
    costs = []
    for artifact in clocks:
        calls = {kind: times[index_of[artifact, kind]] for kind in (WITHOUT, WITH, *([PLAIN] if plain else []))}
        medians = {kind: float(np.median(call[:, WALL])) * 1e3 for kind, call in calls.items()}
        ratios = {k: paired_ratio(calls[WITH][:, compared], c[:, compared]) for k, c in calls.items() if k != WITH}
        costs.append(
            MeshCost(
                artifact,
                faces[artifact],
                without_ms=medians[WITHOUT],
                with_ms=medians[WITH],
                branch_us=float(np.median(branch[index_of[artifact, WITH]])) * 1e6,
                ratio=ratios[WITHOUT],
                plain_ms=medians.get(PLAIN),
                ratio_to_plain=ratios.get(PLAIN),
            )
        )
    return costs


def _timed(
    modes: Sequence[Mode], clocks: Mapping[ArtifactId, Clock], frame: Frame, rounds: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds of each call (modes, rounds, 2), by the wall clock and of work; and of the branch in it (modes, rounds).

    The branch's are those of the last call that ran it, so they mean something for calls with meshes only.
    """
    times = np.empty((len(modes), WARM_UP + rounds, 2))
    branch = np.empty((len(modes), WARM_UP + rounds))
    gc.collect()
    gc.freeze()  # as `rounds` does: what is loaded stays
    for turn in range(WARM_UP + rounds):
        for index in order(len(modes), turn):
            begin = now()
            modes[index].detect(frame)
            times[index, turn] = np.subtract(now(), begin)
            clock = clocks[modes[index].artifact]
            branch[index, turn] = clock.end[WALL] - clock.begin[WALL]
    gc.unfreeze()
    return times[:, WARM_UP:], branch[:, WARM_UP:]


def _dense_detector(bundle: Bundle, artifact: ArtifactId, threads: int, clock: Clock) -> Detector:
    """A detector as `Detector.load` gives it, whose dense branch is timed."""
    spec, (backend, precision) = bundle.spec, (artifact.backend.value, artifact.precision.value)
    detector, dense = (
        [bundle.read(file) for file in found.files]
        for found in (bundle.artifact(backend, precision), bundle.mesh(backend, precision))
    )
    assert spec.mesh is not None, "a bundle whose mesh was found has its contract"
    network = backends.load(backend, spec.with_features, detector, threads)
    branch = TimedNetwork(backends.load(backend, spec.mesh, dense, threads), clock)
    return Detector(spec, network, lambda: (network, branch))
