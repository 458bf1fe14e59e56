"""Verbs for kill runs: a command on the smallest input, what makes its outputs whole, and what must be kept."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait, scenes
from retinaface_edge.runtime import Bundle
from retinaface_edge.runtime.io.frame_source import opencv

cv2 = opencv()

ROOT = Path(__file__).parents[3]
TEACHER = ROOT.parent / "shared" / "data" / "mesh" / "face_landmark_468.tflite"
USER_SPACE = Path(os.environ.get("RETINAFACE_EDGE_ARM64", ROOT / "build" / "arm64" / "root"))
BUILT = ("--size", "160x128", "--recipe", "fast")


@dataclass
class Room:
    """The folder of one run: a bundle, a video, pictures and labels, the folder of outputs, and which run it is."""

    folder: Path
    turn: int = 0

    @property
    def out(self) -> Path:
        """Where outputs go."""
        return self.folder / "out"

    @property
    def scratch(self) -> Path:
        """What the commands have for /tmp."""
        return self.folder / "tmp"

    @property
    def cache(self) -> Path:
        """Where results are cached."""
        return self.folder / "cache"

    def contents(self) -> dict[str, bytes]:
        """Every file of the outputs."""
        files = (path for path in self.out.rglob("*") if path.is_file() and not path.is_symlink())
        return {str(path.relative_to(self.out)): path.read_bytes() for path in files}

    def clear_scratch(self) -> None:
        """Remove what a SIGKILL may leave."""
        for path in [*self.out.glob("*.part.*"), *self.out.glob(".*"), *self.scratch.iterdir()]:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def prepared(folder: Path) -> Room:
    """A room with all inputs."""
    room = Room(folder)
    for path in (room.out, room.scratch, folder / "photos"):
        path.mkdir()
    writer = cv2.VideoWriter(str(folder / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (160, 128))
    small = cv2.resize(portrait(), (160, 128))
    for index in range(200):
        writer.write(np.roll(small, index, axis=1))
    writer.release()
    boxes = []
    for index, picture in enumerate([portrait(), *scenes(5, seed=3)]):
        cv2.imwrite(str(folder / "photos" / f"{index}.jpg"), cv2.resize(picture, (320, 256)))
        boxes.append({"file": f"{index}.jpg", "boxes_xyxy": [[89, 28, 137, 89]]})
    label = "# 0.jpg\n89 28 48 61 " + "100 50 0 " * 5 + "0.9\n"
    (folder / "photos" / "labels.txt").write_text(label)
    (folder / "photos" / "boxes.json").write_text(json.dumps(boxes))
    for name, images in (("bundle", "2"), ("other", "3")):
        _run(room, ["build", "--output", name, "--images", images, *BUILT, "--cache", "stages"])
    _run(
        room,
        [
            "eval",
            "bundle",
            "--boxes",
            "photos/boxes.json",
            "--scale",
            "input",
            "--gate",
            "none",
            "--no-cache",
            "--json",
            "eval.json",
        ],
    )
    return room


def _run(room: Room, command: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RETINAFACE_EDGE_STATE": str(room.folder / "state")}
    command = [sys.executable, "-m", "retinaface_edge", *command]
    ended = subprocess.run(command, capture_output=True, cwd=room.folder, env=environment)
    assert ended.returncode == 0, ended.stderr.decode(errors="replace")


@dataclass(frozen=True)
class Verb:
    """`before` changes the room for a run, `found` counts what is found so far, `kept` checks it afterwards."""

    name: str
    command: Callable[[Room], list[str]]
    before: Callable[[Room, random.Random], None] = lambda room, chance: None
    found: Callable[[Room], int] = lambda room: 0
    kept: Callable[[Room, int, signal.Signals], None] = lambda room, found, number: None
    missing: Callable[[], str] = lambda: ""
    seconds: float = 0.0

    def whole(self, room: Room, path: Path) -> None:
        """Raises `AssertionError` unless the output is a whole one."""
        if "bundle" in path.relative_to(room.out).parts[0]:
            Bundle.load(room.out / path.relative_to(room.out).parts[0]).verify()
            return
        try:
            WHOLE[path.suffix](path)
        except (ValueError, KeyError, IndexError) as error:
            raise AssertionError(f"{path.name} is half written: {error}") from error


def _lines(path: Path) -> None:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    frames = [record["frame"] for record in records if "frame" in record]
    assert records and frames == list(range(len(frames)))
    assert path.read_text().endswith("\n")


def _table(path: Path) -> None:
    header, *rows = csv.reader(io.StringIO(path.read_text()))
    assert all(len(row) == len(header) for row in rows)
    assert path.read_text().endswith("\n")


def _video(path: Path) -> None:
    capture = cv2.VideoCapture(str(path))
    frames = 0
    while capture.read()[0]:
        frames += 1
    assert frames > 0, "the video has no frame"


def _weights(path: Path) -> None:
    import torch

    torch.load(path, weights_only=True)


def _branch(path: Path) -> None:
    from retinaface_edge.export.models.mesh_branch import read_branch

    read_branch(path)


def _json(path: Path) -> None:
    assert json.loads(path.read_text())["kind"]


def _text(path: Path) -> None:
    assert path.read_text().endswith(("\n", ">"))


WHOLE: dict[str, Callable[[Path], Any]] = {
    ".jsonl": _lines, ".csv": _table, ".mp4": _video, ".pth": _weights, ".state": _weights, ".safetensors": _branch,
    ".json": _json, ".md": _text, ".svg": _text, ".xml": _text,
}  # fmt: skip


def _lines_so_far(room: Room) -> int:
    part = room.out / "faces.part.jsonl"
    return part.read_bytes().count(b"\n") if part.exists() else 0


def _lines_kept(room: Room, found: int, number: signal.Signals) -> None:
    killed = number == signal.SIGKILL and (room.out / "faces.part.jsonl").exists()
    path = room.out / ("faces.part.jsonl" if killed else "faces.jsonl")
    lines = path.read_text().splitlines()
    assert len(lines) >= found, f"{len(lines)} lines are left of {found}"
    for line in lines if not killed else lines[:found]:
        json.loads(line)
    if found > 1 and not killed:  # the frame after the last line may be drawn, and the last one may not be
        capture, frames = cv2.VideoCapture(str(room.out / "clip.mp4")), 0
        while capture.read()[0]:
            frames += 1
        assert frames >= found - 1, f"the video has {frames} frames, the lines {found}"


def _rows_so_far(room: Room) -> int:
    path = room.cache / "results.sqlite"
    if not path.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            return int(database.execute("SELECT count(*) FROM measured").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def _rows_kept(room: Room, found: int, number: signal.Signals) -> None:
    assert _rows_so_far(room) >= found
    if found:
        with sqlite3.connect(room.cache / "results.sqlite") as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _without_cache(room: Room, chance: random.Random) -> None:
    if chance.random() < 0.7:
        shutil.rmtree(room.cache, ignore_errors=True)


def _without_state(room: Room, chance: random.Random) -> None:
    if chance.random() < 0.5:
        (room.out / "model.state").unlink(missing_ok=True)


def _other_stages(room: Room, chance: random.Random) -> None:
    if chance.random() < 0.5:
        shutil.rmtree(room.folder / "fresh", ignore_errors=True)


def _build(room: Room) -> list[str]:
    images = str(2 + room.turn % 2)
    return ["build", "--output", "out/bundle", "--images", images, *BUILT, "--cache", "fresh", "--force"]


MEASURED = ["--cache", "cache", "--json"]
VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            "detect",
            lambda room: [
                *("detect", "bundle", "clip.avi", "--json", "out/faces.jsonl", "--csv", "out/faces.csv"),
                *("--draw", "out"),
            ],
            found=_lines_so_far,
            kept=_lines_kept,
        ),
        Verb(
            "drift",
            lambda room: [
                *("drift", "bundle", "--images", "photos", "--workers", "2", "--gate", "none", *MEASURED),
                "out/drift.json",
            ],
            before=_without_cache,
            found=_rows_so_far,
            kept=_rows_kept,
        ),
        Verb(
            "bench",
            lambda room: [
                *("bench", "bundle", "photos", "--frames", "16", "--json", "out/bench.json"),
                *("--markdown", "out/bench.md", "--artifact", "tflite int8", "--artifact", "onnxruntime int8"),
            ],
            seconds=6.0,
        ),
        Verb(
            "train",
            lambda room: [
                *("train", "--labels", "photos/labels.txt", "--output", "out/model.pth", "--size", "64x64"),
                *("--steps", "4", "--batch", "1", "--threads", "1"),
            ],
            before=_without_state,
        ),
        Verb(
            "train-mesh",
            lambda room: [
                *("train-mesh", "--images", "photos", "--teacher", str(TEACHER), "--output", "out/mesh.safetensors"),
                *("--canvases", "12", "--epochs", "1", "--threads", "1", "--cache", "cache"),
            ],
            before=_without_cache,
            missing=lambda: "" if TEACHER.exists() else f"{TEACHER} is missing",
        ),
        Verb("build", _build, before=_other_stages),
        Verb(
            "eval",
            lambda room: [
                *("eval", "bundle", "--boxes", "photos/boxes.json", "--scale", "input", "--gate", "none"),
                *MEASURED,
                "out/eval.json",
            ],
            before=_without_cache,
            found=_rows_so_far,
            kept=_rows_kept,
        ),
        Verb("compare", lambda room: ["compare", "eval.json", "eval.json", "--json", "out/compare.json"]),
        Verb(
            "choose",
            lambda room: [
                *("choose", "bundle", "other", "--boxes", "photos/boxes.json", "--scale", "input", "--frames", "16"),
                *("--plot", "out/front.svg", "--artifact", "tflite int8", "--budget-ms", "1000"),
                *(*MEASURED, "out/choose.json"),
            ],
            before=_without_cache,
            seconds=8.0,
        ),
        Verb(
            "cost",
            lambda room: [
                *("cost", "bundle", "--core", "cortex-a72", "--json", "out/cost.json", "--user-space", str(USER_SPACE)),
            ],
            missing=lambda: "" if USER_SPACE.exists() else f"{USER_SPACE} is missing: make arm64-userspace",
        ),
    )
}
