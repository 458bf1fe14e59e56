"""Names, text and errors: nothing that others wrote acts on a terminal, and no exception looks like a verdict."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retinaface_edge.cli import exit_codes
from retinaface_edge.cli.main import main
from retinaface_edge.cli.process.streams import GuardedStream
from retinaface_edge.runtime import Bundle, ImageError, ThresholdError
from retinaface_edge.runtime.bundle.bundle import MANIFEST, serialise
from retinaface_edge.runtime.io.atomic import write_atomic
from retinaface_edge.runtime.ops.postprocess import check_thresholds
from retinaface_edge.runtime.text import address, escaped, json_line, printable, without_credentials
from retinaface_edge.runtime.video import detect_video

ODD = os.fsdecode(b"a\xff\x1b[31m\nb.png")
TEXT = st.text(st.characters() | st.characters(whitelist_categories=("Cc", "Cs", "Cf")))  # type: ignore[arg-type]


@given(TEXT)
def test_what_is_printed_moves_no_cursor_and_is_utf8(text: str) -> None:
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", escaped(text))
    assert "\n" not in printable(text)
    escaped(text).encode()
    assert escaped("plain é 漢\n") == "plain é 漢\n"


@given(st.dictionaries(TEXT, TEXT))
def test_a_json_line_is_one_harmless_line_and_gives_every_name_back(value: dict[str, str]) -> None:
    for line in (json_line(value), json_line(value, ascii_only=True)):
        assert json.loads(line.encode()) == value
        assert not re.search("[\x00-\x1f\x7f-\x9f]", line)


@pytest.mark.parametrize("password", ["secret", "sec@ret", "sec/ret", "s:e?c#ret"])
def test_no_password_of_a_url_is_printed(password: str) -> None:
    text = f"video rtsp://admin:{password}@camera:554/live?x=1 cannot be opened"
    assert without_credentials(text) == "video rtsp://***@camera:554/live?x=1 cannot be opened"
    assert address(f"http://me:{password}@host/video?pwd=secret") == "http://***@host/video?…"
    assert address("clip.mp4") == "clip.mp4"
    stream = io.StringIO()
    print(text, file=GuardedStream(stream))  # type: ignore[arg-type]
    assert "ret@" not in stream.getvalue()


def test_an_error_about_a_stream_does_not_tell_its_password(bundle: Bundle) -> None:
    pytest.importorskip("cv2")
    with pytest.raises(ImageError) as refused:
        detect_video(None, "http://me:secret@127.0.0.1:9/x?pwd=secret")  # type: ignore[arg-type]
    assert "secret" not in str(refused.value)
    assert "http://***@127.0.0.1:9/x" in str(refused.value)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_one_odd_name_loses_nothing_and_harms_no_terminal(encoding: str, bundle: Bundle, tmp_path: Path) -> None:
    pictures, out = tmp_path / "in", tmp_path / "out"
    pictures.mkdir()
    out.mkdir()
    for name in ("good.png", ODD, "ü.png"):
        Image.new("RGB", (64, 64)).save(tmp_path / "plain.png")
        os.rename(tmp_path / "plain.png", pictures / name)
    command = [sys.executable, "-m", "retinaface_edge", "detect", str(bundle.path), str(pictures)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    for arguments in (["--json", str(out / "x.jsonl"), "--draw", str(out)], ["--json", "-"]):
        run = subprocess.run([*command, *arguments], env=environment, capture_output=True, check=False)
        assert (run.returncode, b"Traceback" in run.stderr) == (0, False), run.stderr
        assert b"\x1b" not in run.stdout + run.stderr
        lines = (out / "x.jsonl").read_bytes() if "--draw" in arguments else run.stdout
        names = {json.loads(line)["image"] for line in lines.splitlines()}
        assert names == {str(pictures / name) for name in ("good.png", ODD, "ü.png")}


def test_inspect_escapes_what_a_manifest_says(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((bundle.path / MANIFEST).read_text())
    manifest["provenance"]["tools"] = {"\x1b]0;owned\x07": "\x9b31m\n57 of 57 passed"}
    (tmp_path / MANIFEST).write_bytes(serialise(manifest))
    assert main(["inspect", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", printed)
    assert "\n57 of 57" not in printed
    for provenance in (None, [], {"tools": 3}):
        (tmp_path / MANIFEST).write_bytes(serialise({**manifest, "provenance": provenance}))
        assert main(["inspect", str(tmp_path)]) == 2


def test_an_error_inside_is_no_verdict(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: argparse.Namespace) -> int:
        raise KeyError("\x1b[31m")

    monkeypatch.setattr("retinaface_edge.cli.system.installed", broken)
    monkeypatch.setattr("retinaface_edge.benchmarks.doctor.doctor_text", lambda: broken(argparse.Namespace()))
    assert main(["doctor"]) == exit_codes.INTERNAL == 70
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("retinaface-edge: internal error: KeyError")
    kept = Path(line.rpartition(" ")[2])
    assert "in broken" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.unlink()


def test_every_exit_code_is_documented_the_same_way_twice() -> None:
    """In the module, and in the documentation."""
    rows = [line for line in (exit_codes.__doc__ or "").splitlines() if line.startswith("| ") and "code" not in line]
    page = (ROOT / "docs" / "tutorials" / "ci.md").read_text(encoding="utf-8")
    assert rows
    assert all(row in page for row in rows)
    codes = {value for name, value in vars(exit_codes).items() if name.isupper()}
    listed = {int(code) for row in rows for code in row.split("|")[1].split(",")}
    assert codes == listed


@pytest.mark.parametrize("value", ["0.5", None, [0.1, 0.2], 1j, b"1", float("nan"), -0.1, 1.1, {}])
def test_a_threshold_of_another_type_is_said(value: object) -> None:
    with pytest.raises(ThresholdError, match="the score threshold must be between 0 and 1"):
        check_thresholds(value, 0.5)  # type: ignore[arg-type]
    with pytest.raises(ThresholdError, match="the IoU threshold"):
        check_thresholds(0.5, value)  # type: ignore[arg-type]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_makes_the_mode_of_new_files_and_old_ones_keep_theirs(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "new", "x")
        (tmp_path / "old").write_text("x")
        (tmp_path / "old").chmod(0o640)
        write_atomic(tmp_path / "old", "y")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "old").stat().st_mode & 0o777 == 0o640


def test_a_name_as_long_as_names_may_be_is_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127, "x" * 5 + "." + "y" * 249):
        write_atomic(tmp_path / name, "x")
        assert [path.name for path in tmp_path.iterdir()] == [name]
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    "arguments",
    [
        ["drift", "BUNDLE", "--images", "none", "--json", "FILE"],
        ["drift", "BUNDLE", "--images", "none", "--junit", "FILE"],
        ["eval", "BUNDLE", "--boxes", "none", "--json", "FILE"],
        ["inspect", "BUNDLE", "--sbom", "FILE"],
        ["build", "--output", "out", "--checkpoint", "none", "--report", "FILE"],
        ["build", "--output", "out", "--checkpoint", "none", "--log", "FILE"],
        ["report", "BUNDLE", "--output", "FILE"],
        ["train-mesh", "--images", "none", "--teacher", "none", "--output", "FILE"],
    ],
)
def test_where_a_result_goes_is_tried_before_the_work(
    arguments: list[str], bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"BUNDLE": str(bundle.path)}
    for file, why in ((tmp_path / "none" / "x", "there is no folder"), (tmp_path, "it is a directory")):
        assert main([words.get(word, str(file) if word == "FILE" else word) for word in arguments]) == 2
        assert why in capsys.readouterr().err
