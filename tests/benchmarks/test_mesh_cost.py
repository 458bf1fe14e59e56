"""What a mesh costs: measured where it is spent, shown by bench, and judged by a gate."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from acceptance.bars import mesh_cost as bar
from PIL import Image

from retinaface_edge.benchmarks.latency import mesh_cost
from retinaface_edge.benchmarks.latency.mesh_cost import frame_with_faces, mesh_costs
from retinaface_edge.benchmarks.latency.runners import TimedNetwork
from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.cli.main import main
from retinaface_edge.runtime import Bundle
from retinaface_edge.runtime.artifact import ArtifactId, Backend, Precision
from retinaface_edge.runtime.ops.postprocess import RawOutput

DELAY = 0.02


class Slow(TimedNetwork):
    """A dense branch that takes 20 ms more than it should."""

    def run(self, image: np.ndarray) -> Sequence[RawOutput]:
        def late() -> Sequence[RawOutput]:
            until = time.process_time() + DELAY
            while time.process_time() < until:
                pass
            return self._network.run(image)

        return self._clock.time(late)


def test_the_frame_with_about_five_faces_is_measured() -> None:
    frames = [np.full((1, 1, 3), index, np.uint8) for index in range(4)]
    assert frame_with_faces(frames, [0, 9, 6, 1]) is frames[2]
    assert frame_with_faces(frames, [0, 0, 0, 40]) is frames[3]
    assert frame_with_faces(frames, [0, 0, 0, 0]) is None


def test_what_the_branch_takes_is_found_in_the_branch_and_in_the_ratio(
    bundle: Bundle, mesh_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh_cost, "TimedNetwork", Slow)
    openvino = ArtifactId(Backend.OPENVINO, Precision.FP32)
    (cost,) = mesh_costs(mesh_bundle.path, [openvino], portrait(), 1, 9, bundle.path)
    assert (cost.artifact, cost.faces) == (openvino, 1)
    assert DELAY * 1e6 < cost.branch_us < 1e3 * cost.with_ms
    assert cost.plain_ms is not None
    assert cost.with_ms > max(cost.without_ms, cost.plain_ms)
    for ratio in (cost.ratio, cost.ratio_to_plain):
        assert ratio is not None
        assert 1.0 < ratio.low <= ratio.value <= ratio.high


def test_bench_shows_what_a_mesh_costs_and_a_gate_judges_it(
    mesh_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.ascontiguousarray(portrait()[:, :, ::-1])).save(tmp_path / "face.png")
    rule = {"floor": "bench", "figure": "mesh_ratio", "artifact": "openvino int8", "at_most": 0.5, "name": "free"}
    (tmp_path / "gate.json").write_text(json.dumps({"format_version": 1, "rules": [rule]}))
    command = ["bench", str(mesh_bundle.path), str(tmp_path / "face.png"), "--artifact", "openvino int8", "--frames"]
    command += ["8", "--json", str(tmp_path / "r.json"), "--markdown", str(tmp_path / "r.md")]
    assert main([*command, "--gate", str(tmp_path / "gate.json")]) == 1
    (row,) = json.loads((tmp_path / "r.json").read_text())["meshes"]
    assert row["faces"] == 1 and row["ratio"]["value"] > 0.5
    text = capsys.readouterr().out
    assert "openvino int8, bench, a frame, faces: 1: mesh_ratio is" in text
    shown = [line.split() for line in text.splitlines() if line.startswith("openvino int8")]
    assert f"{row['with_ms']:.2f}" in shown[-1]
    assert "| ms per frame, 3D meshes |" in (tmp_path / "r.md").read_text()


def test_the_bar_says_in_a_line_why_it_cannot_be_measured(
    bundle: Bundle, mesh_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "grey.png"
    Image.fromarray(np.full((480, 640, 3), 90, np.uint8)).save(picture)
    assert bar.main([str(mesh_bundle.path), str(picture)]) == 2
    assert "no picture shows a face" in capsys.readouterr().err
    Image.fromarray(np.ascontiguousarray(portrait()[:, :, ::-1])).save(picture)
    assert bar.main([str(bundle.path), str(picture), "--rounds", "2"]) == 2
    assert "no dense branch" in capsys.readouterr().err
