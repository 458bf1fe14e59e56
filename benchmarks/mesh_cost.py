"""What a mesh costs: a frame with meshes against the same frame without, and the dense branch's network alone.

    python -m retinaface_edge.benchmarks.mesh_cost BUNDLE PICTURES [--plain BUNDLE]

`bench` measures it for every artifact. This command holds OpenVINO INT8 to the bar on the picture that has about five
faces, and with `--plain` also against a bundle that was built without a dense branch.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime import backends
from ..runtime.bundle import Bundle
from ..runtime.detector import Detector
from ..runtime.errors import RetinaFaceEdgeError
from .contestants import Clock, Frame, TimedNetwork, now
from .frames import camera_frames
from .intervals import paired_ratio
from .latency import order
from .pinned import choose_cores, run_pinned
from .subjects import MeasurementError

FACES = 5
BAR = 1.05
ROUNDS, MOST_PICTURES = 400, 64
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the bar on one core; 0 when it is met, 1 when it is not, 2 when it cannot be measured."""
    parser = argparse.ArgumentParser(description="Measure what a mesh costs.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+", help="photographs or folders, one with about five faces")
    parser.add_argument("--plain", type=Path, metavar="BUNDLE", help="the same bundle without a dense branch")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="frames of each kind (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        row = _measured(options.bundle, options.pictures, options.plain, options.rounds)
    except RetinaFaceEdgeError as error:
        print(f"mesh_cost: error: {error}", file=sys.stderr)
        return 2
    met = [_reported(row, "ratio", WITHOUT)]
    if options.plain:
        met.append(_reported(row, "ratio_to_plain", PLAIN))
    return 0 if all(met) else 1


def _measured(path: Path, pictures: list[Path], plain: Path | None, rounds: int) -> dict[str, Any]:
    bundle = Bundle.load(path)
    frames = camera_frames(pictures, bundle.spec.width, bundle.spec.height, MOST_PICTURES)
    detector = Detector.load(bundle, "openvino", "int8")
    frame = frame_with_faces(frames, [len(detector.detect(picture)) for picture in frames])
    if frame is None:
        raise MeasurementError("no picture shows a face, and a mesh is measured on faces; give others")
    cores, artifacts = choose_cores(1), [("openvino", "int8")]
    (row,) = run_pinned(mesh_costs, path, artifacts, frame, len(cores), rounds, plain, cores=cores)
    return row


def _reported(row: Mapping[str, Any], key: str, kind: str) -> bool:
    ratio, low, high = row[key]
    against = {WITHOUT: "mesh off", PLAIN: "a bundle without branch"}[kind]
    met = bool(ratio <= BAR)
    print(
        f"{row['name']}, {row['faces']} faces, mesh on against {against}: {ratio:.3f} ({low:.3f}..{high:.3f}), "
        f"bar {BAR:g}: {'met' if met else 'NOT MET'}; {row['with_ms']:.2f} against {row[f'{kind}_ms']:.2f} ms, "
        f"the branch's network {row['branch_microseconds']:.0f} us"
    )
    return met


if __name__ == "__main__":
    sys.exit(main())
