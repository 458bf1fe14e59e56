"""The n-th call of the operating system fails, for every n: a documented exit code, and nothing half-written."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.cli import exit_codes
from retinaface_edge.cli.main import main
from retinaface_edge.export.bundle_writer import Content, write_bundle
from retinaface_edge.runtime import Bundle, BundleError, Spec
from retinaface_edge.runtime.artifact import ArtifactId, Backend, Precision
from retinaface_edge.runtime.bundle.bundle import MANIFEST
from retinaface_edge.runtime.io import sealed
from retinaface_edge.runtime.io.atomic import GrowingFile, part_of, write_whole

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
            write_whole(target, "new")

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
