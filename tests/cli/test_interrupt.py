"""Ctrl-C, as a terminal sends it: to the command and all that it started. One line, 130, and nothing half-written."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait, scenes
from retinaface_edge.cli.process.termination import Terminated, heeding_termination
from retinaface_edge.runtime import Bundle
from retinaface_edge.runtime.draw import draw_faces
from retinaface_edge.runtime.io.atomic import write_atomic
from retinaface_edge.runtime.ops.postprocess import Faces


def tree(folder: Path) -> Mapping[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def heed_interrupts() -> None:
    """A shell's background jobs ignore SIGINT, with all that they start; what a terminal starts does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, picture in enumerate([portrait(), *scenes(12, seed=3)]):
        Image.fromarray(picture[:, :, ::-1]).save(folder / f"{index}.jpg")
        for copy in range(1, 20):  # of other bytes, so that none is known already: work for longer than a moment
            (folder / f"{index}-{copy}.jpg").write_bytes((folder / f"{index}.jpg").read_bytes() + bytes(copy))
    return folder


@pytest.mark.parametrize(
    ("verb", "sign"),
    [
        ("build --output out/new --size 320x256 --cache cache", "calibrate on"),
        ("train --labels photos/labels.txt --output out/model.pth --size 160x128 --batch 1 --every 1", "step 0"),
        ("bench BUNDLE photos --json out/bench.json --markdown out/bench.md --frames 4000", "measure the compute peak"),
        ("drift BUNDLE --images photos --workers 2 --json out/drift.json --cache cache", "left"),
    ],
    ids=["build", "train", "bench", "drift"],
)
def test_ctrl_c_is_one_line_and_leaves_nothing_half(
    verb: str, sign: str, bundle: Bundle, photos: Path, tmp_path: Path
) -> None:
    """`sign` is what the command, or a library in a process of it, says on standard error when its work has begun."""
    (photos / "labels.txt").write_text("# 0.jpg\n178 57 97 123 " + "200 100 0 " * 5 + "0.9\n")
    (tmp_path / "out").mkdir()
    before = tree(bundle.path)
    process = subprocess.Popen(
        [sys.executable, "-m", "retinaface_edge", *verb.replace("BUNDLE", str(bundle.path)).split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_interrupts,
    )
    assert process.stderr
    killer = threading.Timer(60.0, os.killpg, (process.pid, signal.SIGKILL))
    killer.start()
    said: list[str] = []
    while not said or sign not in said[-1]:
        said.append(process.stderr.readline())
        assert said[-1], f"it ended before it said {sign!r}: {''.join(said)}"
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    killer.cancel()
    lines = errors.splitlines()
    # An interrupt inside some C code has Python end by the signal itself, which a shell shows as the same 130.
    assert process.returncode in (130, -signal.SIGINT), errors
    assert "Traceback" not in errors, errors
    assert lines[-1] == "retinaface-edge: interrupted; nothing was left half-written", errors
    assert tree(tmp_path / "out") == {}
    assert tree(bundle.path) == before


def test_a_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stops the writing; a drawing, too."""
    path = tmp_path / "a.png"
    path.write_text("old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_atomic(path, "new")
        with pytest.raises(KeyboardInterrupt):
            draw_faces(portrait(), Faces(np.zeros(0), np.zeros((0, 4)), np.zeros((0, 5, 2))), path)
    assert tree(tmp_path) == {"a.png": b"old"}
    write_atomic(path, "new")
    assert tree(tmp_path) == {"a.png": b"new"}


def test_what_is_no_file_is_written_to_and_a_link_stays_one(tmp_path: Path) -> None:
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "file"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_atomic(pipe, "text")
    reader.join(10)
    assert got == [b"text"]
    assert pipe.is_fifo()
    link.symlink_to(file)
    write_atomic(link, b"bytes")
    assert link.is_symlink()
    assert file.read_bytes() == b"bytes"


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_waits_until_another_package_is_imported(
    number: signal.Signals, kind: type[KeyboardInterrupt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python code that its modules in C call as they are loaded must not raise: some abort the process then."""
    name = f"slow_{number.name.lower()}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(f"from . import inner\ninner.callback({int(number)})\nwhole = True\n")
    (tmp_path / name / "inner.py").write_text("import signal\ncallback = signal.raise_signal\n")
    monkeypatch.syspath_prepend(tmp_path)
    reached: list[str] = []
    with pytest.raises(kind), heeding_termination():
        module = importlib.import_module(name)
        reached.append("imported" if module.whole else "not whole")
        threading.Event().wait(20)
        reached.append("not interrupted")
    assert reached == ["imported"]


def test_a_signal_is_heeded_in_a_command_that_an_imported_module_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script may call `main` while it is itself imported; that import ends only when the command does."""
    (tmp_path / "script.py").write_text(
        "import signal, threading\n"
        "from retinaface_edge.cli.process.termination import heeding_termination\n"
        "with heeding_termination():\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    threading.Event().wait(20)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        importlib.import_module("script")
    assert time.monotonic() - started < 15
