"""The command line: what it prints, what it writes, and what it says of bad input."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.cli.arguments import percent, positive, share, size
from retinaface_edge.cli.build import _request as build_request
from retinaface_edge.cli.exit_codes import INTERNAL
from retinaface_edge.cli.main import command_line, main
from retinaface_edge.runtime import Bundle


@pytest.fixture(scope="module")
def astronaut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "astronaut.png"
    Image.fromarray(portrait()[:, :, ::-1]).save(path)
    return path


def detected(bundle: Bundle, paths: list[Path], folder: Path, *options: str) -> list[dict[str, object]]:
    target = folder / "faces.jsonl"
    assert main(["detect", str(bundle.path), *map(str, paths), "--json", str(target), *options]) == 0
    return [json.loads(line) for line in target.read_text().splitlines()]


@pytest.mark.parametrize("backend", ["openvino", "tflite", "onnxruntime"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_artifact_finds_the_same_face(
    bundle: Bundle, astronaut: Path, tmp_path: Path, backend: str, precision: str
) -> None:
    (record,) = detected(bundle, [astronaut], tmp_path, "--backend", backend, "--precision", precision)
    assert (record["image"], record["width"], record["height"]) == (str(astronaut), 512, 512)
    (face,) = record["faces"]  # type: ignore[misc]
    assert face["score"] > 0.99
    # Where the face is in this well-known photograph: from the hairline to the chin, eyes level, nose between them.
    assert np.abs(np.array(face["box"]) - [178, 57, 275, 180]).max() < 4
    left, right, nose, mouth_left, mouth_right = np.array(face["landmarks"])
    assert left[0] < nose[0] < right[0]
    assert left[1] < nose[1] < mouth_left[1]
    assert mouth_left[0] < mouth_right[0]


def test_pictures_of_every_kind_give_the_same_face(bundle: Bundle, astronaut: Path, tmp_path: Path) -> None:
    """Grey, RGBA, palette, 16-bit and EXIF-rotated files, and a folder of them."""
    pixels = np.asarray(Image.open(astronaut))
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])).save(folder / "rgba.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "sixteen.png")
    Image.fromarray(pixels).quantize(256).save(folder / "palette.png")
    rotated = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown upright after turning 90 degrees clockwise
    rotated.save(folder / "deep" / "rotated.jpg", exif=exif, quality=95)
    Image.fromarray(pixels).convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    (folder / "notes.txt").write_text("not a picture, and not looked at")
    records = detected(bundle, [folder], tmp_path)
    assert [Path(str(record["image"])).name for record in records] == [
        "cmyk.jpg", "rotated.jpg", "grey.png", "palette.png", "rgba.png", "sixteen.png"
    ]  # fmt: skip
    for record in records:
        (face,) = record["faces"]  # type: ignore[misc]
        assert np.abs(np.array(face["box"]) - [178, 57, 275, 180]).max() < 6, record["image"]


def test_drawings_are_written_and_show_the_box(bundle: Bundle, astronaut: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "astronaut.png"
    other.parent.mkdir()
    other.write_bytes(astronaut.read_bytes())
    out = tmp_path / "drawn"
    assert main(["detect", str(bundle.path), str(astronaut), str(other), "--draw", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["astronaut-2.png", "astronaut.png"]
    before, after = (np.asarray(Image.open(path)).astype(int) for path in (astronaut, out / "astronaut.png"))
    changed = np.argwhere(np.abs(before - after).sum(axis=2) > 0)
    assert 0 < len(changed) < 0.05 * 512 * 512
    assert np.abs(changed.max(axis=0) - [180, 275]).max() <= 8


def test_json_on_standard_output_is_all_there_is(
    bundle: Bundle, astronaut: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["detect", str(bundle.path), str(astronaut), "--json", "-"]) == 0
    assert len(json.loads(capsys.readouterr().out)["faces"]) == 1


def test_a_bad_picture_among_good_ones_is_named_and_the_others_are_done(
    bundle: Bundle, astronaut: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(astronaut.read_bytes()[:5000])
    target = tmp_path / "faces.jsonl"
    assert main(["detect", str(bundle.path), str(bad), str(astronaut), "--json", str(target)]) == 2
    assert "bad.png cannot be read as a picture" in capsys.readouterr().err
    assert len(target.read_text().splitlines()) == 1


def test_verify_and_inspect(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle.path)]) == 0
    assert f"{len(bundle.files)} files, all as built" in capsys.readouterr().out
    assert main(["inspect", str(bundle.path)]) == 0
    shown = capsys.readouterr().out
    assert "1x480x640x3" in shown
    assert "yakhyo" in shown
    assert "tflite/model.int8.tflite" in shown


def test_doctor_says_what_this_machine_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) <= 10
    for word in ("target", "openvino", "tflite", "onnxruntime", "best"):
        assert word in shown


def test_a_build_by_command_reports_its_layers_and_is_quick_the_second_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["build", "--images", "3", "--cache", str(tmp_path / "cache"), "--recipe", "fast", "--force"]
    command += ["--size", "160x128"]
    report = tmp_path / "layers.md"
    first, second = tmp_path / "first", tmp_path / "second"
    assert main([*command, "--output", str(first), "--report", str(report)]) == 0
    said = capsys.readouterr().err
    assert "warning: only 3 calibration images" in said
    assert "calibrate on 3 images" in said
    assert report.read_text().count("\n| ") == 57
    assert main([*command, "--output", str(second)]) == 0
    said = capsys.readouterr().err
    assert "in the cache" in said
    assert "calibrate on" not in said
    for file in Bundle.load(first).files:
        assert (first / file.path).read_bytes() == (second / file.path).read_bytes(), file.path
    assert (first / "manifest.json").read_bytes() == (second / "manifest.json").read_bytes()


def test_a_drift_that_cannot_be_met_fails_with_1_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retinaface_edge.export.precision_search.STEPS", (0, 1))
    command = ["build", "--images", "2", "--cache", str(tmp_path / "cache"), "--recipe", "fast"]
    command += ["--size", "160x128", "--max-drift", "0"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 1
    assert "the drift asked for, 0 %, cannot be reached" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


BAD_INPUT = {
    "directory as checkpoint": (["build", "--output", "OUT", "--checkpoint", "DIR"], "is a directory"),
    "absent checkpoint": (["build", "--output", "OUT", "--checkpoint", "DIR/none.pth"], "does not exist"),
    "text as onnx": (["build", "--output", "OUT", "--checkpoint", "TEXT.onnx"], "is not an ONNX model"),
    "empty calibration folder": (["build", "--output", "OUT", "--calibration", "DIR"], "holds no "),
    "invalid size": (["build", "--output", "OUT", "--size", "650x480"], "nearest valid size is 640x480"),
    "output in a file": (["build", "--output", "TEXT.onnx/out"], "cannot be written"),
    "read-only output": (["build", "--output", "/proc/out"], "cannot be written"),
    "existing output": (["build", "--output", "DIR2"], "exists already"),
    "not a bundle": (["detect", "DIR", "PICTURE"], "not a bundle"),
    "absent bundle": (["verify", "DIR/none"], "is not a folder"),
    "absent picture": (["detect", "BUNDLE", "DIR/none.png"], "does not exist"),
    "empty folder of pictures": (["detect", "BUNDLE", "DIR"], "holds no "),
    "one pixel as picture": (["detect", "BUNDLE", "ONE.png"], "is 1x1 pixels: give a photograph"),
    "text as picture": (["detect", "BUNDLE", "TEXT.onnx"], "cannot be read as a picture"),
    "unwritable json": (["detect", "BUNDLE", "PICTURE", "--json", "DIR/none/x.json"], "No such file or directory"),
    "bench of nothing": (["bench", "BUNDLE", "PICTURE", "--artifact", "abacus*"], "no artifact of"),
    "bench with too many cores": (["bench", "BUNDLE", "PICTURE", "--cores", "4096"], "4096 cores were asked for"),
    "bench without a baseline": (
        ["bench", "BUNDLE", "PICTURE", "--cores", "1", "--max-regression", "5%"],
        "--baseline",
    ),
    "bench stores without a pick": (["bench", "BUNDLE", "PICTURE", "--store"], "give both"),
    "bench peers in an empty folder": (["bench", "BUNDLE", "PICTURE", "--peers", "DIR"], "holds no ONNX file"),
    "bench against text": (["bench", "BUNDLE", "PICTURE", "--baseline", "TEXT.onnx"], "is not readable JSON"),
    "bench into nowhere": (["bench", "BUNDLE", "PICTURE", "--json", "DIR/none/x.json"], "there is no folder"),
    "drawing into a file": (["detect", "BUNDLE", "PICTURE", "--draw", "TEXT.onnx"], "File exists"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gives_one_line_and_exit_code_2_and_leaves_nothing(
    case: str, bundle: Bundle, astronaut: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "DIR").mkdir()
    (tmp_path / "DIR2").mkdir()
    (tmp_path / "DIR2" / "something").touch()
    (tmp_path / "TEXT.onnx").write_text("hello")
    Image.new("RGB", (1, 1)).save(tmp_path / "ONE.png")
    before = sorted(tmp_path.rglob("*"))
    arguments, message = BAD_INPUT[case]
    places = {"BUNDLE": str(bundle.path), "PICTURE": str(astronaut)}

    def placed(word: str) -> str:
        known = word in places
        return (
            places[word]
            if known
            else str(tmp_path / word)
            if word.split("/")[0].isupper() or word[:4] in ("TEXT", "ONE.")
            else word
        )

    assert main([placed(word) for word in arguments]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("retinaface-edge: error:")]
    assert len(error) == 1
    assert message in error[0]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["build"], ["build", "--output", "x", "--size", "big"], ["detect", "x", "y", "--threads", "0"]],
)
def test_bad_usage_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_help_shows_an_example_for_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("build", "detect", "bench", "verify", "inspect"):
        with pytest.raises(SystemExit) as caught:
            main([verb, "--help"])
        assert caught.value.code == 0
        shown = capsys.readouterr().out
        assert f"example: retinaface-edge {verb} " in " ".join(shown.split())
        assert len(shown.splitlines()) <= 50


def test_a_closed_pipe_is_no_traceback(bundle: Bundle) -> None:
    command = f"{sys.executable} -m retinaface_edge inspect {bundle.path} | head -1"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert result.stdout.startswith("bundle")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("package", "words", "extra"),
    [
        ("shtab", ["completion", "bash"], "completion"),
        ("torch", ["train", "--labels", "none.txt", "--output", "model.pth"], "build"),
        ("torch", ["build", "--output", "bundle"], "build"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_installs_it(
    package: str, words: list[str], extra: str, tmp_path: Path
) -> None:
    """In a process of its own, in which that package cannot be imported."""
    code = (
        f"import sys; sys.modules[{package!r}] = None; from retinaface_edge.cli.main import main; exit(main({words}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("retinaface-edge: error: ")
    assert f"needs {package}; run: pip install 'retinaface-edge[{extra}]'" in line


def test_a_fault_of_our_own_imports_is_not_taken_for_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "retinaface_edge.benchmarks.doctor", None)
    assert main(["doctor"]) == INTERNAL
    monkeypatch.setitem(sys.modules, "retinaface_edge.benchmarks.report.html", None)
    assert main(["report", "bundle", "--output", "report.html"]) == INTERNAL


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (size, {"640x480": (640, 480), "32X64": (32, 64)}, ["640", "x480", "640x", "6.4x4", "-1x5", "٣x٣"]),
        (positive, {"1": 1, "007": 7}, ["0", "-1", "1.5", "", "٣"]),
        (percent, {"5": 5.0, "2.5%": 2.5, "100": 100.0}, ["101", "-1", "nan", "inf", "five"]),
        (share, {"0": 0.0, "0.5": 0.5, "1": 1.0}, ["1.1", "-0.1", "nan", "50%"]),
    ],
    ids=["size", "positive", "percent", "share"],
)
def test_an_argument_is_what_its_type_says_or_is_refused(
    kind: Callable[[str], object], good: dict[str, object], bad: list[str]
) -> None:
    assert {text: kind(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match=re.escape(repr(text))):
            kind(text)


@pytest.mark.parametrize(
    ("options", "recipe", "columns"),
    [
        ([], "balanced", 2),
        (["--target", "x86-vnni"], "balanced", 2),
        (["--target", "raspberry-pi-4"], "fast", 2),
        (["--target", "raspberry-pi-5"], "fast", 4),
        (["--target", "raspberry-pi-5", "--recipe", "accurate"], "accurate", 4),
    ],
)
def test_a_target_chooses_the_recipe_unless_one_is_given(options: list[str], recipe: str, columns: int) -> None:
    request = build_request(command_line().parse_args(["build", "--output", "out", "--no-cache", *options]))
    assert (request.recipe.name, request.recipe.image_columns) == (recipe, columns)
