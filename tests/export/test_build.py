"""The build: the same bytes each time, nothing made twice, and whatever stops it, a whole bundle or none."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from conftest import ROOT
from robustness.trust.kill_verbs import VERBS, prepared
from robustness.trust.kills import kill

from retinaface_edge.calibration.dataset.image_set import CalibrationError, image_folder
from retinaface_edge.calibration.dataset.synthetic_scenes import Scenes, scenes
from retinaface_edge.cli.main import main
from retinaface_edge.export import bundle_writer as write
from retinaface_edge.export import stage_cache as cache
from retinaface_edge.export.build_products import (
    CheckpointFacts,
    ExportedNetwork,
    QuantisedNetwork,
    RecognisedCheckpoint,
    from_files,
    to_files,
)
from retinaface_edge.export.bundle_writer import Content, reserved, write_bundle
from retinaface_edge.export.checkpoints.source import CheckpointError, checkpoint_file
from retinaface_edge.export.lower.openvino import lower_openvino
from retinaface_edge.export.lower.tflite import LoweringError
from retinaface_edge.runtime import Bundle, BundleError, Spec
from retinaface_edge.runtime.artifact import ArtifactId, Backend, Precision

SMALL = ["build", "--images", "3", "--recipe", "fast", "--size", "160x128", "--force"]


def run(arguments: list[str], folder: Path, seed: int) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT)}
    code = (
        "import sys; from retinaface_edge.cli.main import main; code = main(sys.argv[1:]);"
        "print('loaded', *sorted({'torch', 'openvino', 'skimage', 'onnxsim'} & set(sys.modules))); sys.exit(code)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.splitlines()[-1] + "\n" + result.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache, a bundle made with it, and its log."""
    folder = tmp_path_factory.mktemp("built")
    run([*SMALL, "--cache", "cache", "--output", "bundle", "--log", "log.json"], folder, seed=1)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stages(log: Path) -> dict[str, bool]:
    return {entry["stage"]: entry["cached"] for entry in json.loads(log.read_text())["stages"]}


def test_two_builds_in_two_processes_and_folders_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    said = run([*SMALL, "--cache", "other", "--output", "elsewhere/another name"], tmp_path, seed=2)
    assert "calibrate on 3 images" in said
    first, second = contents(built / "bundle"), contents(tmp_path / "elsewhere" / "another name")
    assert len(first) >= 14
    assert first == second


def test_a_second_build_makes_nothing_and_starts_no_framework(built: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (built / "bundle").rglob("*")}
    said = run([*SMALL, "--cache", "cache", "--output", "bundle", "--log", "again.json"], built, seed=3)
    assert said.startswith("loaded\n")
    assert stages(built / "again.json") == dict.fromkeys(stages(built / "log.json"), True)
    assert {path: path.stat().st_mtime_ns for path in (built / "bundle").rglob("*")} == before
    assert "only 3 calibration images" in said  # what was wrong with the images still is


def test_a_changed_calibration_set_redoes_only_what_follows_it(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / "cache", tmp_path / "cache")
    command = [*SMALL, "--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "out")]
    log = tmp_path / "log.json"
    run([*command, "--images", "2", "--log", str(log)], tmp_path, seed=1)
    assert stages(log) == {
        "read the checkpoint": True,
        "self-check": False,
        "export to ONNX": True,
        "calibration and INT8 model": False,
        "lower fp32 to ONNX, OpenVINO and TFLite": True,
        "lower int8 to ONNX, OpenVINO and TFLite": False,
    }


def test_the_log_has_what_the_bundle_must_not_have(built: Path) -> None:
    log = json.loads((built / "log.json").read_text())
    assert log["manifest_digest"] == Bundle.load(built / "bundle").manifest["digest"]
    text = b"".join(contents(built / "bundle").values())
    for fact in (log["folder"], log["begun"][:10], log["finished"][:10]):
        assert fact.encode() not in text


def test_a_stage_is_known_by_its_inputs_options_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    key = cache.stage_key("quantise", {"model": "1", "drift": None}, ("onnx",))
    assert key == cache.stage_key("quantise", {"drift": None, "model": "1"}, ("onnx",))
    others = [
        cache.stage_key("lower", {"model": "1", "drift": None}, ("onnx",)),
        cache.stage_key("quantise", {"model": "2", "drift": None}, ("onnx",)),
        cache.stage_key("quantise", {"model": "1", "drift": 3}, ("onnx",)),
        cache.stage_key("quantise", {"model": "1", "drift": None}, ("onnx", "openvino")),
    ]
    monkeypatch.setattr(cache, "version", lambda name: "another")
    others.append(cache.stage_key("quantise", {"model": "1", "drift": None}, ("onnx",)))
    monkeypatch.undo()
    monkeypatch.setattr(cache, "_code", lambda: "changed")
    others.append(cache.stage_key("quantise", {"model": "1", "drift": None}, ("onnx",)))
    assert len({key, *others}) == 7


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert cache.Stages(tmp_path / "file").run("a", {}, (), lambda: {"x": b"1"}) == {"x": b"1"}
    assert cache.Stages(None).run("a", {}, (), lambda: {"x": b"1"}) == {"x": b"1"}


def test_a_cache_keeps_what_was_used_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "ENTRIES_KEPT", 2)
    (tmp_path / f"{cache.SCRATCH}abandoned").mkdir()
    (tmp_path / f"{cache.SCRATCH}running").mkdir()
    os.utime(tmp_path / f"{cache.SCRATCH}abandoned", (0, 0))
    for age, key in enumerate("abc"):
        cache.write_entry(tmp_path, key, {"x": b"1"})
        os.utime(tmp_path / key, (1000 + age, 1000 + age))
    assert cache.read_entry(tmp_path, "a")
    cache.write_entry(tmp_path, "d", {"x": b"1"})
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c", "d", f"{cache.SCRATCH}running"}


def test_photographs_are_known_by_their_bytes_and_read_when_needed(tmp_path: Path) -> None:
    from PIL import Image

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index, frame in enumerate(scenes(2)):
        Image.fromarray(frame).save(pictures / f"{index}.png")
    (pictures / "bad.png").write_bytes(b"no picture")
    source = image_folder(pictures, 10)
    assert source.digest == image_folder(pictures, 10).digest
    warnings: list[str] = []
    assert len(source.read(Spec(160, 128), warnings.append).inputs) == 2
    assert "bad.png" in warnings[0]
    (pictures / "bad.png").write_bytes(b"still none")
    assert source.digest != image_folder(pictures, 10).digest
    with pytest.raises(CalibrationError, match="changed while it was read"):
        source.read(Spec(160, 128), warnings.append)
    assert Scenes(3).digest != Scenes(4).digest


def test_checkpoints_that_are_too_large_are_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "model.pth", "wb") as file:
        file.truncate(2 << 30)  # a hole, no disk space
    with pytest.raises(CheckpointError, match="larger than"):
        checkpoint_file(tmp_path / "model.pth")


@pytest.fixture
def content() -> Content:
    files = {"onnx/model.onnx": b"abc" * 1000, "c/a.h": b"/* */"}
    return Content(Spec(), files, {ArtifactId(Backend.ONNXRUNTIME, Precision.FP32): ["onnx/model.onnx"]}, {})


def test_two_builds_to_one_output_do_not_interleave(tmp_path: Path, content: Content) -> None:
    output = tmp_path / "bundle"
    with reserved(output, replace=False):
        with pytest.raises(BundleError, match="another build is writing"), reserved(output, replace=False):
            pass
        with reserved(tmp_path / "other", replace=False):
            write_bundle(content, output)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    with pytest.raises(BundleError, match="exists already"), reserved(output, replace=False):
        pass
    with reserved(output, replace=True):
        pass


def test_what_a_killed_build_left_is_removed_by_the_next_and_nothing_else(tmp_path: Path, content: Content) -> None:
    output = tmp_path / "bundle"
    write_bundle(content, output)
    (tmp_path / ".bundle.unfinished-abc" / "new").mkdir(parents=True)
    (tmp_path / ".bundle.lock").touch()
    (tmp_path / ".bundle.mine").mkdir()
    with reserved(output, replace=True):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", ".bundle.mine"}
    Bundle.load(output).verify()


def test_an_output_with_a_wildcard_in_its_name_removes_nothing_of_others(tmp_path: Path) -> None:
    (tmp_path / ".bundle.unfinished-abc").mkdir()
    (tmp_path / ".b*.unfinished-mine").mkdir()
    with reserved(tmp_path / "b*", replace=False):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".bundle.unfinished-abc"]


def test_a_lock_that_is_a_link_is_refused_and_its_target_untouched(tmp_path: Path) -> None:
    (tmp_path / ".bundle.lock").symlink_to(tmp_path / "target")
    with pytest.raises(BundleError, match="is a link, and a lock must be a file"), reserved(tmp_path / "bundle", False):
        pass
    assert not (tmp_path / "target").exists()


def test_products_of_stages_survive_the_cache() -> None:
    network = ExportedNetwork(b"onnx", 123)
    assert from_files(ExportedNetwork, to_files(network)) == network
    facts = CheckpointFacts("yakhyo", "MobileNetV1 x0.25", "0" * 64, ("module.",))
    read = RecognisedCheckpoint(facts, {"width": 640})
    assert from_files(RecognisedCheckpoint, to_files(read)) == read
    int8 = QuantisedNetwork(b"model", b"{}", b"{}", b"| |", ("only 3 images",))
    assert from_files(QuantisedNetwork, to_files(int8)) == int8


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_bundle_is_replaced_whole(
    tmp_path: Path, content: Content, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    output = tmp_path / "bundle"
    write_bundle(content, output)
    old = Bundle.load(output).manifest["digest"]
    if not exchanges:
        monkeypatch.setattr(write.ctypes, "CDLL", lambda *_, **__: object())
    other = Content(content.spec, {**content.files, "more.txt": b"1"}, content.artifacts, {})
    assert write_bundle(other, output).manifest["digest"] != old
    Bundle.load(output).verify()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_full_disk_is_one_line_and_leaves_the_old_bundle(
    built: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "bundle"
    shutil.copytree(built / "bundle", output)
    before = contents(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    command = [
        *SMALL,
        "--images",
        "3",
        "--licence",
        "another",
        "--cache",
        str(built / "cache"),
        "--output",
        str(output),
    ]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        code = main(command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert "cannot be written (File too large)" in errors[0]
    assert contents(tmp_path) == before


def test_a_full_folder_for_temporary_files_is_one_line(fp32: onnx.ModelProto, spec: Spec) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for allowed in (1000, 300_000):  # full at once, and full in the middle of the weights
        resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, limits[1]))
        try:
            with pytest.raises(LoweringError, match="cannot be written; make room there"):
                lower_openvino(fp32, spec)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_builds_killed_at_random_instants_leave_a_whole_bundle(tmp_path: Path) -> None:
    outcome = kill(VERBS["build"], 8, seed=1, room=prepared(tmp_path))
    assert sum(outcome.killed.values()) == 8
