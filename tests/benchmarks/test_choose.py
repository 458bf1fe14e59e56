"""The choice among bundles: a front that nothing dominates, and a recommendation that follows from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from PIL import Image

from retinaface_edge.benchmarks.choose.accuracy import accuracy_of, labelled_by
from retinaface_edge.benchmarks.choose.front import recommend, with_front
from retinaface_edge.benchmarks.choose.result import Candidate, ChooseResult
from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.benchmarks.inference.measurement import Execution
from retinaface_edge.benchmarks.report.choose_plot import choose_plot
from retinaface_edge.benchmarks.report.choose_text import choose_text
from retinaface_edge.benchmarks.results import read_result
from retinaface_edge.calibration.dataset.synthetic_scenes import scenes
from retinaface_edge.cli.main import main
from retinaface_edge.runtime import Bundle
from retinaface_edge.runtime.artifact import ArtifactId, Backend, Precision
from retinaface_edge.runtime.host.artifact_choice import read_pick
from retinaface_edge.schemas import read_schema

INT8 = ArtifactId(Backend.OPENVINO, Precision.INT8)


def candidate(name: str, ms: float, ap: float) -> Candidate:
    return Candidate(name, INT8, ms, ms, 1.2 * ms, ap, 1000, 100.0)


def beyond(points: float) -> Callable[[Candidate, Candidate], bool]:
    return lambda a, b: a.ap - b.ap > points


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_else_beats(drawn: list[tuple[int, int]]) -> None:
    found = with_front([candidate(str(index), ms, ap / 10) for index, (ms, ap) in enumerate(drawn)])
    for one in found:
        beaten = [o for o in found if o.ms <= one.ms and o.ap >= one.ap and (o.ms, o.ap) != (one.ms, one.ap)]
        assert one.on_front == (not beaten)
    front = sorted({(one.ms, one.ap) for one in found if one.on_front})
    assert [ap for _, ap in front] == sorted(ap for _, ap in front)


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12),
    st.floats(1.3, 12.0),
    st.floats(0.0, 0.4),
)
def test_the_recommendation_is_within_budget_near_the_best_and_the_fastest_of_these(
    drawn: list[tuple[int, int]], budget_ms: float, noise: float
) -> None:
    given_ = [candidate(str(index), ms, ap / 10) for index, (ms, ap) in enumerate(drawn)]
    picked = recommend(given_, budget_ms, beyond(noise))
    within = [one for one in given_ if one.p90_ms <= budget_ms]
    if not within:
        assert picked.bundle is None
        assert "comes nearest" in picked.reason
        return
    (chosen,) = (one for one in given_ if one.bundle == picked.bundle)
    best = max(one.ap for one in within)
    assert chosen in within
    assert chosen.ms == min(one.ms for one in within if not best - one.ap > noise)


def test_the_reason_tells_what_was_left_and_why() -> None:
    small, large, slow = candidate("small", 5.0, 0.75), candidate("large", 15.0, 0.752), candidate("slow", 90.0, 0.9)
    noise = recommend([small, large, slow], 33.3, beyond(0.01))
    assert (noise.bundle, noise.artifact) == ("small", INT8)
    assert "large openvino int8 is 0.20 points better, which is noise" in noise.reason
    assert "takes 3.00 times as long" in noise.reason
    assert "2 of 3" in noise.reason
    assert recommend([small, large, slow], 33.3, beyond(0.001)).bundle == "large"
    assert recommend([small, large, slow], 200.0, beyond(0.001)).bundle == "slow"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index, frame in enumerate(scenes(3, seed=1)):
        Image.fromarray(np.ascontiguousarray(frame[:, :, ::-1])).save(folder / f"{index}.png")
    return folder


def test_a_bundle_agrees_with_its_own_labels(bundle: Bundle, pictures: Path) -> None:
    files = {path.name: path for path in pictures.iterdir()}
    dataset = labelled_by(bundle, "demo", files, Execution())
    names = ["onnxruntime fp32", "openvino int8"]
    measured = accuracy_of({"demo": bundle}, {"demo": names}, dataset, Execution())
    assert measured.row("demo", names[0]).ap == {"faces": 1.0}
    assert (measured.row("demo", names[1]).ap["faces"] or 0.0) > 0.9
    assert not measured.better(("demo", names[0]), ("demo", names[0]))
    assert measured.warnings() == ()


def test_pictures_without_faces_label_nothing(bundle: Bundle, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    with pytest.raises(MeasurementError, match="demo finds no face in 1 pictures"):
        labelled_by(bundle, "demo", {"black.png": tmp_path / "black.png"}, Execution())


def test_the_verb_measures_two_bundles_and_stores_its_pick(
    bundle: Bundle, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copy of a bundle under another name: as accurate, so which of the two is picked is a matter of time."""
    for name in ("first", "second"):
        shutil.copytree(bundle.path, tmp_path / name)
    files = {"json": tmp_path / "choose.json", "plot": tmp_path / "front.svg"}
    command = ["choose", str(tmp_path / "first"), str(tmp_path / "second"), "--images", str(pictures), "--no-cache"]
    command += ["--quick", "--artifact", "openvino *", "--budget-ms", "5000", "--store"]
    assert main([*command, *(word for name, path in files.items() for word in (f"--{name}", str(path)))]) == 0
    result = read_result(files["json"], ChooseResult)
    Draft202012Validator(read_schema("results/choose")).validate(json.loads(files["json"].read_text()))
    assert result.reference == "first"
    assert {candidate.name for candidate in result.candidates} == {
        f"{name} openvino {precision}" for name in ("first", "second") for precision in ("fp32", "int8")
    }
    assert result.bundles[0].detector == "RetinaFace, MobileNetV1 x0.25"
    picked = result.recommendation
    stored = read_pick(Bundle.load(tmp_path / str(picked.bundle)))
    assert stored is not None
    assert stored.id == picked.artifact
    assert f"recommended: {picked.bundle} {picked.artifact}" in capsys.readouterr().out
    svg = ElementTree.fromstring(files["plot"].read_text())
    assert len([node for node in svg.iter() if node.tag.endswith("circle")]) == len(result.candidates) + 2
    none = replace(result, recommendation=recommend(result.candidates, 1e-3, beyond(0.0)))
    assert "recommended: none: none keeps to 0.001 ms" in choose_text(none)
    assert choose_plot(none) == files["plot"].read_text()


def test_the_same_bundle_twice_is_refused(bundle: Bundle, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["choose", str(bundle.path), str(bundle.path), "--images", str(pictures)]) == 2
    assert "given twice" in capsys.readouterr().err
