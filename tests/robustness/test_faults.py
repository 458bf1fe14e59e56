"""The n-th call of the operating system fails, for every n: a documented exit code, and nothing half-written."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.cli import exit_codes
from retinaface_edge.cli.main import main
from retinaface_edge.export.bundle_writer import Content, write_bundle
from retinaface_edge.runtime import Bundle, BundleError, ImageError, Spec
from retinaface_edge.runtime.artifact import ArtifactId, Backend, Precision
from retinaface_edge.runtime.bundle.bundle import MANIFEST
from retinaface_edge.runtime.io import sealed
from retinaface_edge.runtime.io.atomic import GrowingFile, part_of, remove_folder, write_atomic
from retinaface_edge.runtime.io.video_writer import VideoWriter

CALLS = ("open", "fdopen", "read", "write", "fsync", "replace", "rename", "unlink", "mkdir", "link", "fstat", "stat")
MOST = 400


class Faults:
    """Counts calls, and fails the one of that number."""

    def __init__(self, number: int, code: int) -> None:
        self.number, self.code, self.seen = number, code, 0

    def failing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, failing in its turn."""

        def run(*arguments: Any, **options: Any) -> Any:
            self.seen += 1
            if self.seen == self.number:
                raise OSError(self.code, os.strerror(self.code))
            return call(*arguments, **options)

        return run


@contextmanager
def faults(number: int, code: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    found = Faults(number, code)
    with monkeypatch.context() as patched:
        for name in CALLS:
            patched.setattr(os, name, found.failing(getattr(os, name)))
        opened = found.failing(builtins.open)
        patched.setattr(builtins, "open", opened)
        patched.setattr(io, "open", opened)
        yield found


def walked(run: Callable[[], None], check: Callable[[], None], code: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """`run` once for each call that it makes, which fails; `check` after each. Gives the number of calls."""
    for number in range(1, MOST):
        with faults(number, code, monkeypatch) as found:
            run()
        check()
        if found.seen < number:
            return number - 1
    pytest.fail(f"more than {MOST} calls")


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_files_are_whole_or_as_they_were(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, lines = tmp_path / "file", tmp_path / "lines"

    def run() -> None:
        with suppress(OSError):
            write_atomic(target, "new")

    def check() -> None:
        assert target.read_text() in ("old", "new")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        target.write_text("old")

    target.write_text("old")
    assert walked(run, check, code, monkeypatch) > 3

    def grow() -> None:
        with suppress(OSError):
            file = GrowingFile(lines)
            file.line("one")
            file.close()

    def whole() -> None:
        assert not lines.exists() or lines.read_text() == "one\n"
        for path in (lines, part_of(lines)):
            path.unlink(missing_ok=True)

    assert walked(grow, whole, code, monkeypatch) > 3


def test_a_bundle_is_the_old_one_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fp32 = ArtifactId(Backend.ONNXRUNTIME, Precision.FP32)
    output = tmp_path / "bundle"
    versions = [Content(Spec(), {"onnx/m.onnx": bytes([n])}, {fp32: ["onnx/m.onnx"]}, {"n": n}) for n in (0, 1)]
    write_bundle(versions[0], output)
    manifests = {(output / MANIFEST).read_bytes()}
    write_bundle(versions[1], output)
    manifests.add((output / MANIFEST).read_bytes())
    turn = 0

    def run() -> None:
        nonlocal turn
        turn += 1
        with suppress(BundleError):
            write_bundle(versions[turn % 2], output)

    def check() -> None:
        Bundle.load(output).verify()
        assert (output / MANIFEST).read_bytes() in manifests

    assert walked(run, check, errno.EIO, monkeypatch) > 10


def test_detect_and_verify_end_in_a_documented_code(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(sealed.STATE_VARIABLE, str(tmp_path / "state"))
    Image.fromarray(portrait()[::4, ::4, ::-1]).save(tmp_path / "a.png")
    faces = tmp_path / "faces.jsonl"
    commands = (
        ["detect", str(bundle.path), str(tmp_path / "a.png"), "--backend", "tflite", "--precision", "int8"],
        ["verify", str(bundle.path)],
    )
    commands[0].extend(["--json", str(faces), "--draw", str(tmp_path / "drawn")])
    good = (exit_codes.GOOD, exit_codes.BAD_INPUT)
    for command in commands:
        assert main(command) == 0  # imports what is imported late
        codes: list[int] = []

        def run(command: list[str] = command, codes: list[int] = codes) -> None:
            codes.append(main(command))

        def check(codes: list[int] = codes) -> None:
            said = capsys.readouterr()
            assert codes[-1] in good, said.err
            assert "Traceback" not in said.err
            assert not faces.exists() or all(json.loads(line) for line in faces.read_text().splitlines())

        assert walked(run, check, errno.EIO, monkeypatch) > 3
        assert codes[-1] == 0
        assert exit_codes.BAD_INPUT in codes


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc compiles what fails the calls")
def test_calls_of_every_language_fail_and_nothing_is_half_written() -> None:
    """A few of the calls that `tests/robustness/trust/faults.py` fails one by one: of pictures and of a drawn video."""
    pytest.importorskip("cv2", reason="the extra `video` is not installed")
    script = ROOT / "tests" / "robustness" / "trust" / "faults.py"
    options = ["--scenario", "pictures", "--scenario", "video", "--sample", "6"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, str(script), *options], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count(" 0 wrong") == 6


def test_a_line_that_does_not_fit_leaves_nothing_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = GrowingFile(tmp_path / "x.jsonl")
    file.line('{"frame": 0}')
    write = file._file.write

    class Full:
        """Takes a part of what it is given, and then nothing."""

        def __init__(self) -> None:
            self.left = 5

        def write(self, data: memoryview) -> int:
            if not self.left:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            taken, self.left = write(data[: self.left]), 0
            return int(taken or 0)

        def __getattr__(self, name: str) -> Any:
            return getattr(raw, name)

    raw = file._file
    monkeypatch.setattr(file, "_file", Full())
    with pytest.raises(OSError, match="No space"):
        file.line('{"frame": 1}')
    file.close()
    assert (tmp_path / "x.jsonl").read_text() == '{"frame": 0}\n'


class Truncating:
    """A writer of OpenCV's on a full disk: what comes last is not written, and nothing is said."""

    def __init__(self, writer: Any, path: Path) -> None:
        self._writer, self._path = writer, path

    def release(self) -> None:
        self._writer.release()
        os.truncate(self._path, self._path.stat().st_size // 2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".mov"])
def test_a_video_that_was_not_written_whole_takes_no_name(suffix: str, tmp_path: Path) -> None:
    cv = pytest.importorskip("cv2", reason="the extra `video` is not installed")
    target = tmp_path / f"clip{suffix}"
    target.write_bytes(b"an earlier video")
    frame = np.zeros((64, 64, 3), np.uint8)
    for damaged in (True, False):
        writer = VideoWriter(cv, target, 10.0)
        for index in range(20):
            writer.write(np.roll(frame + np.arange(64, dtype=np.uint8)[:, None, None], index, axis=0), index / 10.0)
        if damaged:
            writer._writer = Truncating(writer._writer, part_of(target))
            with pytest.raises(ImageError, match="disk is not full"):
                writer.close()
            assert target.read_bytes() == b"an earlier video"
        else:
            writer.close()
            assert cv.VideoCapture(str(target)).read()[0]
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


class Interrupted:
    """A writer of OpenCV's while Ctrl-C is pressed: Python hears of it when the call is over."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, frame: np.ndarray) -> None:
        self._writer.write(frame)
        raise KeyboardInterrupt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


@pytest.mark.parametrize("frames", [1, 9])
def test_a_video_that_was_interrupted_as_a_frame_was_written_is_kept(frames: int, tmp_path: Path) -> None:
    cv = pytest.importorskip("cv2", reason="the extra `video` is not installed")
    target = tmp_path / "clip.mp4"
    writer = VideoWriter(cv, target, 10.0)
    for index in range(frames):
        writer.write(np.zeros((64, 64, 3), np.uint8), index / 10.0)
    writer._writer = Interrupted(writer._writer)
    with pytest.raises(KeyboardInterrupt):
        writer.write(np.zeros((64, 64, 3), np.uint8), frames / 10.0)
    writer.close()
    capture, found = cv.VideoCapture(str(target)), 0
    while capture.read()[0]:
        found += 1
    assert found == frames + 1


def test_a_folder_that_cannot_be_removed_at_once_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build() -> None:
        (tmp_path / "scratch" / "new").mkdir(parents=True)
        (tmp_path / "scratch" / "new" / "file").write_text("x")

    build()
    calls = 0
    for number in range(1, 20):
        with monkeypatch.context() as patched:
            found = Faults(number, errno.EIO)
            for name in ("open", "unlink", "rmdir", "scandir", "lstat"):
                patched.setattr(os, name, found.failing(getattr(os, name)))
            remove_folder(tmp_path / "scratch")
        assert not (tmp_path / "scratch").exists()
        calls = max(calls, found.seen)
        build()
    assert calls >= 5


@pytest.mark.parametrize("refusal", [OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), MemoryError()])
def test_what_the_system_refuses_an_exporter_is_no_internal_error(
    refusal: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    def export(*arguments: object, **options: object) -> None:
        try:
            raise refusal
        except Exception as error:
            raise RuntimeError("step 1/3") from error

    monkeypatch.setattr(torch.onnx, "export", export)
    command = ["build", "--output", str(tmp_path / "bundle"), "--images", "1", "--size", "64x64", "--no-cache"]
    assert main(command) == exit_codes.BAD_INPUT
    said = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device" in said or "not enough memory" in said
