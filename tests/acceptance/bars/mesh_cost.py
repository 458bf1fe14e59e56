"""The bar of a mesh's cost: OpenVINO INT8 with meshes against without, on the picture that has about five faces.

    python tests/acceptance/bars/mesh_cost.py BUNDLE PICTURES [--plain BUNDLE]

`bench` measures it for every artifact. With `--plain`, also against a bundle that was built without a dense branch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.benchmarks.latency.frames import camera_frames
from retinaface_edge.benchmarks.latency.mesh_cost import frame_with_faces, mesh_costs
from retinaface_edge.benchmarks.latency.pinned_process import choose_cores, run_pinned
from retinaface_edge.benchmarks.latency.result import MeshCost
from retinaface_edge.benchmarks.stats.bootstrap import Ratio
from retinaface_edge.runtime.artifact import ArtifactId, Backend, Precision
from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.detector import Detector
from retinaface_edge.runtime.errors import RetinaFaceEdgeError

BAR = 1.05
ROUNDS, MOST_PICTURES = 400, 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the bar on one core; 0 when it is met, 1 when it is not, 2 when it cannot be measured."""
    parser = argparse.ArgumentParser(description="Measure what a mesh costs.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+", help="photographs or folders, one with about five faces")
    parser.add_argument("--plain", type=Path, metavar="BUNDLE", help="the same bundle without a dense branch")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="frames of each kind (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        cost = _measured(options.bundle, options.pictures, options.plain, options.rounds)
    except RetinaFaceEdgeError as error:
        print(f"mesh_cost: error: {error}", file=sys.stderr)
        return 2
    met = [_reported(cost, cost.ratio, cost.without_ms, "mesh off")]
    if options.plain:
        met.append(_reported(cost, cost.ratio_to_plain, cost.plain_ms, "a bundle without branch"))
    return 0 if all(met) else 1


def _measured(path: Path, pictures: list[Path], plain: Path | None, rounds: int) -> MeshCost:
    bundle = Bundle.load(path)
    frames = camera_frames(pictures, bundle.spec.width, bundle.spec.height, MOST_PICTURES)
    detector = Detector.load(bundle, "openvino", "int8")
    frame = frame_with_faces(frames, [len(detector.detect(picture)) for picture in frames])
    if frame is None:
        raise MeasurementError("no picture shows a face, and a mesh is measured on faces; give others")
    cores, artifacts = choose_cores(1), [ArtifactId(Backend.OPENVINO, Precision.INT8)]
    (cost,) = run_pinned(mesh_costs, path, artifacts, frame, len(cores), rounds, plain, cores=cores)
    return cost


def _reported(cost: MeshCost, ratio: Ratio | None, other_ms: float | None, against: str) -> bool:
    assert ratio is not None and other_ms is not None
    met = ratio.value <= BAR
    print(
        f"{cost.artifact}, {cost.faces} faces, mesh on against {against}: {ratio.value:.3f} ({ratio.low:.3f}.."
        f"{ratio.high:.3f}), bar {BAR:g}: {'met' if met else 'NOT MET'}; {cost.with_ms:.2f} against {other_ms:.2f} ms, "
        f"the branch's network {cost.branch_us:.0f} us"
    )
    return met


if __name__ == "__main__":
    sys.exit(main())
