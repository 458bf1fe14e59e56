"""The report: whole, self-contained, small, and shown by a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from retinaface_edge.benchmarks.accuracy.datasets import read_boxes
from retinaface_edge.benchmarks.accuracy.result import EvalResult
from retinaface_edge.benchmarks.accuracy.run import evaluate
from retinaface_edge.benchmarks.drift.layer_metrics import layer_drift
from retinaface_edge.benchmarks.drift.mesh_metrics import mesh_drift
from retinaface_edge.benchmarks.drift.result import DriftResult
from retinaface_edge.benchmarks.drift.run import drift
from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.benchmarks.gates.gate import read_gate
from retinaface_edge.benchmarks.inference.measurement import Execution, read_set
from retinaface_edge.benchmarks.inference.network_under_test import REFERENCE, networks_of
from retinaface_edge.benchmarks.latency.result import Absent, BenchResult, MeshCost
from retinaface_edge.benchmarks.report.html import ReportInput, write_report
from retinaface_edge.benchmarks.report.plots import Axis, Series, bar_plot
from retinaface_edge.benchmarks.results import BundleOrigin, read_result
from retinaface_edge.benchmarks.stats.bootstrap import Ratio
from retinaface_edge.calibration.dataset.synthetic_scenes import portrait, scenes
from retinaface_edge.runtime import Bundle, Detector
from retinaface_edge.runtime.artifact import ArtifactId, Backend, Precision
from retinaface_edge.runtime.mesh.topology import topology

OLD = ROOT / "tests" / "fixtures" / "results_v1"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PHONE = 390
CHILDLESS = ("meta", "line", "polyline", "rect", "circle", "image", "polygon")


@pytest.fixture(scope="module")
def report(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it, of pictures whose annotation is what FP32 finds."""
    folder = tmp_path_factory.mktemp("report")
    pictures = folder / "pictures"
    pictures.mkdir()
    detector = Detector.load(bundle, "onnxruntime", "fp32")
    listed = []
    for index, frame in enumerate(scenes(6, seed=3)):
        name = f"<{index}> & co.jpg"
        Image.fromarray(frame[:, :, ::-1]).save(pictures / name)
        listed.append({"file": name, "boxes_xyxy": detector.detect(frame).boxes.tolist()})
    (pictures / "boxes.json").write_text(json.dumps(listed))
    networks, origin = networks_of(bundle), BundleOrigin(bundle.manifest["digest"], {})
    files, (reference,) = read_set(pictures), networks_of(bundle, [str(REFERENCE)])
    layers = layer_drift(reference, networks, files, Execution())
    drifted = replace(drift(networks, files, Execution()), layers=layers, bundle=origin)
    accuracy = replace(evaluate(networks, read_boxes(pictures / "boxes.json"), Execution(), scale="vga"), bundle=origin)
    given = ReportInput(bundle, drifted, (accuracy,), bench_of(bundle), pictures)
    write_report(folder / "report.html", given, read_gate(None))
    return folder / "report.html"


def bench_of(bundle: Bundle) -> BenchResult:
    """What bench measured of another bundle, as if it were of this one."""
    return replace(read_result(OLD / "bench.json", BenchResult), bundle=BundleOrigin(bundle.manifest["digest"], {}))


class Tags(HTMLParser):
    """What a page refers to, and whether its tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in CHILDLESS:
            self.open.append(tag)
        self.references += [value or "" for key, value in attributes if key in ("src", "href", "xlink:href", "data")]

    def handle_endtag(self, tag: str) -> None:
        # Titles of lines and bars lie inside them, so shapes may have an end of their own.
        if tag not in CHILDLESS:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_it_is_one_small_file_that_refers_to_nothing_outside(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text.removeprefix("<!doctype html>"))
    assert tags.open == []
    assert tags.references and all(reference.startswith("data:image/jpeg;base64,") for reference in tags.references)
    assert not re.search(r"url\(|@import|<script|https?://", text)
    assert len(text.encode()) < 3_000_000


def test_it_begins_with_the_verdict_and_shows_every_artifact(report: Path, bundle: Bundle) -> None:
    tags = Tags()
    tags.feed(report.read_text(encoding="utf-8").removeprefix("<!doctype html>"))
    text = " ".join(tags.text)
    assert text.index("Gate ") < text.index("Summary") < text.index("Plots") < text.index("Provenance")
    for artifact in bundle.artifacts:
        assert artifact.name in text and f"{artifact.bytes:,}" in text
    for title in ("Drift of score by stride", "Precision and recall", "Latency against AP", "Where the difference is"):
        assert title in text
    assert "3D meshes" not in text, "this bundle has none"
    assert "<0> & co.jpg" in text or "<1> & co.jpg" in text, "names are shown as they are"


def test_meshes_have_a_floor_and_their_wireframes_lie_on_each_other(mesh_bundle: Bundle, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(np.ascontiguousarray(portrait()[:, :, ::-1])).save(pictures / "a & b.png")
    files = read_set(pictures)
    result = replace(
        drift(networks_of(mesh_bundle), files, Execution()), meshes=mesh_drift(mesh_bundle, files, Execution())
    )
    worst = {row.artifact: row.worst_percent_of_size for row in result.meshes}
    assert worst["openvino fp32"] is not None and worst["openvino int8"] is not None
    assert worst["openvino fp32"] < 0.01 < worst["openvino int8"] < 3.0
    write_report(tmp_path / "r.html", ReportInput(mesh_bundle, result, images=pictures), read_gate(None))
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert len(page) < 3_000_000
    section = page[page.index("3D meshes against FP32") : page.index("Provenance")]
    for row in result.meshes:
        assert f"<td>{row.artifact}</td><td>1</td><td>{row.mean_percent_of_size:.3f}</td>" in section
    assert "% of √(box area)" in section, "percent of what"
    assert section.count("<figure>") == 6, "two faces for each INT8 artifact"
    assert "openvino int8, worst face" in section and "a &amp; b.png" in section
    for width, height, paths in re.findall(r'viewBox="0 0 (\d+) (\d+)".*?>(<path.*?)</svg>', section):
        wires = re.findall(r'd="(.*?)"', paths)
        expected, found = (np.array(re.findall(r"[-\d.]+", wire), float).reshape(-1, 4) for wire in wires)
        assert len(expected) == len(topology().edges)
        assert expected.min() > 0 and (expected.reshape(-1, 2).max(axis=0) < (int(width), int(height))).all()
        assert 0 < np.abs(expected - found).mean() < 0.05 * int(width)
    (pictures / "a & b.png").unlink()
    ratio = Ratio(1.0625, 1.0, 1.1)
    cost = MeshCost(ArtifactId(Backend.TFLITE, Precision.INT8), 1, 20.0, 21.25, 100.0, ratio)
    timed = replace(bench_of(mesh_bundle), meshes=(cost,))
    given = ReportInput(mesh_bundle, result, bench=timed, images=pictures)
    write_report(tmp_path / "r.html", given, read_gate(None))
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "worst face" in page and "not drawn" in page
    costs = dict(re.findall(r"<tr><td>(\w+ \w+)</td>(?:<td>[^<]*</td>){5}<td>× ([^<]*)</td></tr>", page))
    assert costs == {**dict.fromkeys(worst, "-"), "tflite int8": "1.062"}


def text_of(page: Path) -> str:
    tags = Tags()
    tags.feed(page.read_text(encoding="utf-8").removeprefix("<!doctype html>"))
    assert tags.open == []
    return " ".join(tags.text)


def test_any_result_makes_a_report_by_itself_with_a_gate_or_none(bundle: Bundle, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    write_report(page, ReportInput(bundle, bench=bench_of(bundle)), read_gate(None))
    text = text_of(page)
    assert "no rule of it is about these results" in text
    for runner in bench_of(bundle).runners:
        assert f"{runner.latency.p50_low_ms:.2f} to {runner.latency.p50_high_ms:.2f}" in text
    for warning in bench_of(bundle).warnings:
        assert f"Warning: {warning}" in text
    assert "Drift: 100 % less the mean IoU" in text and "Absent: abs" in text
    one = replace(read_result(OLD / "eval.json", EvalResult), bundle=None)
    one = replace(one, results=one.results[:1])
    write_report(page, ReportInput(bundle, evals=(one,)))
    text = text_of(page)
    assert "Gate not applied: none was given" in text and "Recall by face size" in text
    alone = replace(read_result(OLD / "drift.json", DriftResult), bundle=None)
    write_report(page, ReportInput(bundle, alone), read_gate(None))
    assert re.search(r"Gate (passed|failed): \d+ of \d+ checks passed", text_of(page))


def test_bars_beyond_the_axis_are_marked_as_cut() -> None:
    short, long = Series("a", ((0.0, 59.0),), 0), Series("b", ((0.0, 61.0),), 1)
    axis = Axis("SQNR, dB", 0.0, 60.0)
    assert "cut" not in bar_plot("t", ["stride 8"], axis, [short])
    plot = bar_plot("t", ["stride 8"], axis, [short, long])
    assert plot.count('class="cut"') == 1
    assert "Values above 60 are cut" in plot


def test_names_cannot_break_out_of_the_page(bundle: Bundle, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'&"
    result = bench_of(bundle)
    first = replace(result.runners[0], name=evil)
    result = replace(result, runners=(first, *result.runners[1:]), warnings=(evil,), absent=(Absent(evil, evil),))
    write_report(tmp_path / "r.html", ReportInput(bundle, bench=result))
    assert "<script" not in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert text_of(tmp_path / "r.html").count(evil) >= 4


def test_results_of_another_bundle_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    other = replace(read_result(OLD / "drift.json", DriftResult), bundle=BundleOrigin("0" * 64, {}))
    with pytest.raises(MeasurementError, match="is from a different bundle"):
        write_report(tmp_path / "report.html", ReportInput(bundle, other))
    with pytest.raises(MeasurementError, match="there is nothing to report"):
        write_report(tmp_path / "report.html", ReportInput(bundle))
    empty = replace(read_result(OLD / "eval.json", EvalResult), bundle=None, results=())
    with pytest.raises(MeasurementError, match="compares nothing"):
        write_report(tmp_path / "report.html", ReportInput(bundle, evals=(empty,)))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def browser() -> str:
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    if os.environ.get("RETINAFACE_EDGE_REQUIRE_SHARED"):
        pytest.fail("no Chromium is installed, and RETINAFACE_EDGE_REQUIRE_SHARED is set")
    pytest.skip("no Chromium is installed")


def screenshot(browser: str, page: Path, width: int, height: int, tmp_path: Path) -> np.ndarray:
    shot = tmp_path / f"{width}.png"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},{height}", f"--screenshot={shot}"]
    subprocess.run([*command, page.as_uri()], capture_output=True, timeout=120, check=True)
    return np.asarray(Image.open(shot).convert("RGB")).astype(int)


def test_a_browser_shows_the_verdict_the_plots_and_the_boxes(report: Path, browser: str, tmp_path: Path) -> None:
    pixels = screenshot(browser, report, 1200, 4000, tmp_path)

    def drawn(colour: tuple[int, int, int]) -> int:
        return int((np.abs(pixels - colour).max(axis=2) <= 3).sum())

    assert drawn((233, 246, 242)) + drawn((252, 239, 230)) > 10_000, "the verdict's background"
    for colour in ((0, 114, 178), (213, 94, 0), (0, 158, 115)):
        assert drawn(colour) > 500, "the plots' colours"
    assert drawn((0, 230, 118)) > 50 and drawn((255, 47, 208)) > 20, "both sets of boxes"


def test_it_fits_a_phone(report: Path, browser: str, tmp_path: Path) -> None:
    """The page is asked how wide it is: only tables may be scrolled, not the page."""
    probe = tmp_path / "probe.html"
    script = "<script>document.title = 'width ' + document.documentElement.scrollWidth + ' of ' + innerWidth</script>"
    frame = report.read_text(encoding="utf-8").replace("</body>", f"{script}</body>")
    probe.write_text(frame, encoding="utf-8")
    holder = tmp_path / "phone.html"
    holder.write_text(
        f'<iframe id="f" src="{probe.name}" width="{PHONE}" height="800" style="border:0"></iframe>'
        "<script>f.onload = () => document.body.append(f.contentDocument.title)</script>"
    )
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom", holder.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"width (\d+) of (\d+)", done.stdout)
    assert found is not None, done.stdout[-500:]
    assert int(found[1]) <= int(found[2]) == PHONE


def test_it_prints(report: Path, browser: str, tmp_path: Path) -> None:
    target = tmp_path / "report.pdf"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    subprocess.run(
        [*command, f"--print-to-pdf={target}", report.as_uri()], capture_output=True, timeout=120, check=True
    )
    pages = len(re.findall(rb"/Type\s*/Page[^s]", target.read_bytes()))
    assert 2 <= pages <= 12
