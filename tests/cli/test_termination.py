"""What is found is kept: sources that end early, SIGTERM, SIGKILL, and the processes that a command started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import ROOT

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait, scenes
from retinaface_edge.cli.exit_codes import SOURCE_ENDED, TERMINATED
from retinaface_edge.cli.main import main
from retinaface_edge.runtime import Bundle, Detector, ImageError
from retinaface_edge.runtime.io import frame_source
from retinaface_edge.runtime.io.atomic import GrowingFile, part_of
from retinaface_edge.runtime.video import Stream, detect_video

cv2 = pytest.importorskip("cv2", reason="the extra `video` is not installed")
FRAMES = 30


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (320, 256))
    small = cv2.resize(portrait(), (320, 256))
    for index in range(FRAMES):
        writer.write(np.roll(small, index, axis=1))
    writer.release()
    return path


@pytest.fixture(scope="module")
def detector(bundle: Bundle) -> Detector:
    return Detector.load(bundle, "tflite", "int8")


class Server(ThreadingHTTPServer):
    """A camera that sends pictures as MJPEG: `frames` for each caller in turn, then it hangs up."""

    turns: tuple[int, ...] = ()


class Camera(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        frames, *left = self.server.turns or (0,)
        self.server.turns = tuple(left)
        self.send_response(200 if frames else 503)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        picture = cv2.imencode(".jpg", cv2.resize(portrait(), (320, 256)))[1].tobytes()
        for _ in range(frames):
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            self.wfile.write(head.encode() + picture + b"\r\n")

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def camera() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def url(server: Server) -> str:
    return f"http://user:secret@127.0.0.1:{server.server_address[1]}/live.mjpeg"


def test_half_a_video_is_no_success_and_what_came_is_kept(
    bundle: Bundle, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = tmp_path / "half.avi"
    content = clip.read_bytes()
    half.write_bytes(content[: len(content) // 2])
    target = tmp_path / "faces.jsonl"
    assert main(["detect", str(bundle.path), str(half), "--json", str(target)]) == SOURCE_ENDED == 3
    said = capsys.readouterr()
    *frames, end = [json.loads(line) for line in target.read_text().splitlines()]
    assert 0 < len(frames) < FRAMES
    assert end["frames"] == len(frames)
    assert end["promised"] == FRAMES
    assert f"after {len(frames)} of {FRAMES} frames" in end["ended"]
    assert f"read {len(frames)} of {FRAMES} frames" in said.out
    assert f"after {len(frames)} of {FRAMES} frames" in said.err
    assert main(["detect", str(bundle.path), str(clip), "--json", str(target)]) == 0
    assert json.loads(target.read_text().splitlines()[-1]) == {"frames": FRAMES, "promised": FRAMES, "ended": None}


def test_a_stream_that_dies_is_no_success(bundle: Bundle, camera: Server, tmp_path: Path) -> None:
    camera.turns = (5,)
    target = tmp_path / "faces.jsonl"
    assert main(["detect", str(bundle.path), url(camera), "--json", str(target)]) == SOURCE_ENDED
    *frames, end = [json.loads(line) for line in target.read_text().splitlines()]
    assert 0 < len(frames) <= 5
    assert "secret" not in end["ended"]
    assert f"was lost after {len(frames)} frames" in end["ended"]


def test_a_lost_stream_is_opened_again_with_longer_and_longer_pauses(
    detector: Detector, camera: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is absent twice, comes, dies, is absent twice, and comes back: the pauses begin anew after each frame."""
    pauses: list[float] = []
    monkeypatch.setattr(frame_source.time, "sleep", pauses.append)
    camera.turns = (0, 0, 5, 0, 0, 40)
    said: list[str] = []
    report = detect_video(detector, Stream(url(camera), reconnect=True, warn=said.append), max_frames=20)
    assert report.frames == 20
    assert report.ended is None
    assert pauses[:2] == [1.0, 2.0]
    assert pauses[2:] == [1.0, 2.0, 4.0]
    assert all("secret" not in line and "trying again in" in line for line in said)


def test_a_list_of_other_files_is_no_video(detector: Detector, clip: Path, tmp_path: Path) -> None:
    """FFmpeg would open what the list names, whatever the list is called."""
    for text in (f"ffconcat version 1.0\nfile {clip}\n", f"#EXTM3U\n#EXTINF:1,\n{clip}\n", "v=0\r\n"):
        (tmp_path / "list.mp4").write_text(text)
        with pytest.raises(ImageError, match="its content is no"):
            detect_video(detector, str(tmp_path / "list.mp4"))
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(ImageError, match="does not exist"):
        detect_video(detector, str(tmp_path / "pipe.mp4"))


def test_a_name_is_no_protocol(detector: Detector, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "concat:x.avi").write_bytes(clip.read_bytes())
    assert detect_video(detector, "concat:x.avi").frames == FRAMES


def started(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "retinaface_edge", *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def until(condition: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])
def test_a_killed_run_keeps_its_lines_and_an_earlier_video(
    number: signal.Signals, bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    target, drawn = tmp_path / "faces.jsonl", tmp_path / "clip.mp4"
    target.write_text("old\n")
    drawn.write_bytes(b"an earlier video")
    process = started(["detect", str(bundle.path), str(clip), "--json", str(target), "--draw", str(tmp_path)], tmp_path)
    part = part_of(target)
    until(lambda: part.exists() and part.read_bytes().count(b"\n") >= 2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    found = target if number == signal.SIGTERM else part
    records = [json.loads(line) for line in found.read_text().splitlines()]
    assert len(records) >= 2
    assert [record["frame"] for record in records] == list(range(len(records)))
    if number == signal.SIGTERM:
        assert process.returncode == TERMINATED
        assert errors.splitlines()[-1] == b"retinaface-edge: terminated; nothing was left half-written"
        assert cv2.VideoCapture(str(drawn)).read()[0]
        assert not part.exists()
    else:
        assert target.read_text() == "old\n"
        assert drawn.read_bytes() == b"an earlier video"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["TERM", "KILL"])
def test_workers_end_with_the_command(number: signal.Signals, bundle: Bundle, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for index, picture in enumerate(scenes(4, seed=5)):
        for copy in range(30):
            encoded = cv2.imencode(".jpg", picture)[1].tobytes()
            (photos / f"{index}-{copy}.jpg").write_bytes(encoded + bytes(copy))
    process = started(["drift", str(bundle.path), "--images", str(photos), "--workers", "2", "--no-cache"], tmp_path)
    parent = psutil.Process(process.pid)
    until(lambda: len(parent.children(recursive=True)) >= 3)  # two workers, and Python's tracker of resources
    children = parent.children(recursive=True)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (TERMINATED if number == signal.SIGTERM else -signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=2)
    assert alive == []


def test_a_growing_file_is_tried_first_and_follows_no_link(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        GrowingFile(tmp_path / "none" / "x.jsonl")
    with pytest.raises(IsADirectoryError):
        GrowingFile(tmp_path)
    target, victim = tmp_path / "x.jsonl", tmp_path / "victim"
    victim.write_text("mine")
    part_of(target).symlink_to(victim)
    file = GrowingFile(target)
    file.line("one")
    assert not target.exists()
    file.close()
    assert (target.read_text(), victim.read_text()) == ("one\n", "mine")
    GrowingFile(target).close(empty=False)
    assert target.read_text() == "one\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["victim", "x.jsonl"]
