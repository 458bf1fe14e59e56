"""What a camera is asked for, a Pi's own camera, and the codec and the times of a drawn video.

No camera and no Pi is here. `FakePicamera2` has the calls of Picamera2's manual (version 0.3, chapters 2 to 4): a
camera is constructed by its number, configured by what `create_video_configuration` makes, started, and gives arrays.
"""

from __future__ import annotations

import os
import sys
import types
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinaface_edge.cli.main import main
from retinaface_edge.runtime import BackendError, Bundle, ImageError
from retinaface_edge.runtime.io.frame_source import CameraOptions, FrameSource, Stream, is_video
from retinaface_edge.runtime.io.video_writer import LONGEST_HOLD, VideoWriter

cv2 = pytest.importorskip("cv2", reason="the extra `video` is not installed")
SETTINGS = ("main", "controls", "buffer_count")


class FakePicamera2:
    """One camera, number 0; it gives a frame of its size, blue in the first channel of what is called RGB888."""

    opened: list[FakePicamera2]

    def __init__(self, camera_num: int = 0) -> None:
        if camera_num != 0:
            raise IndexError("list index out of range")  # as Picamera2 does
        self.started, self.closed, self.config = False, False, dict[str, Any]()
        type(self).opened.append(self)

    def create_video_configuration(self, **settings: Any) -> dict[str, Any]:
        assert set(settings) <= set(SETTINGS)
        return settings

    def configure(self, config: dict[str, Any]) -> None:
        self.config = config

    def start(self) -> None:
        self.started = True

    def capture_array(self, name: str) -> np.ndarray:
        assert self.started and name == "main" and self.config["main"]["format"] == "RGB888"
        width, height = self.config["main"]["size"]
        return np.full((height, width, 3), (200, 100, 50), np.uint8)

    def stop(self) -> None:
        self.started = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def picamera2(monkeypatch: pytest.MonkeyPatch) -> type[FakePicamera2]:
    module = types.ModuleType("picamera2")
    FakePicamera2.opened = []
    module.Picamera2 = FakePicamera2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    return FakePicamera2


def test_a_pi_camera_gives_frames_of_what_was_asked_for(picamera2: type[FakePicamera2]) -> None:
    stream = Stream("picamera", camera_options=CameraOptions((320, 240), 15, 2))
    assert stream.live and is_video("picamera:0")
    with closing(FrameSource(cv2, stream)) as source:
        (frame,) = islice(source.frames(), 1)
        assert frame.shape == (240, 320, 3) and frame[0, 0].tolist() == [200, 100, 50]
        assert source.rate == 15 and source.promised is None
    (camera,) = picamera2.opened
    assert camera.config["controls"] == {"FrameRate": 15} and camera.config["buffer_count"] == 2
    assert camera.closed and not camera.started


def test_a_pi_camera_is_a_source_of_the_command_line(
    picamera2: type[FakePicamera2], bundle: Bundle, tmp_path: Path
) -> None:
    command = ["detect", str(bundle.path), "picamera", "--frames", "2", "--source-size", "160x120", "--draw"]
    assert main([*command, str(tmp_path), "--json", str(tmp_path / "faces.jsonl")]) == 0
    lines = (tmp_path / "faces.jsonl").read_text().splitlines()
    assert len(lines) == 2 and '"width": 160, "height": 120' in lines[0]
    assert picamera2.opened[0].closed


def test_an_absent_pi_camera_is_one_line(picamera2: type[FakePicamera2], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match="camera picamera:1 cannot be opened"):
        FrameSource(cv2, Stream("picamera:1"))
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(BackendError, match="sudo apt install python3-picamera2"):
        FrameSource(cv2, Stream("picamera"))


def test_only_cameras_have_options(tmp_path: Path) -> None:
    for name in ("clip.mp4", "rtsp://camera/1"):
        with pytest.raises(ImageError, match="is no camera: it has its own size"):
            FrameSource(cv2, Stream(name, camera_options=CameraOptions(rate=10)))


def test_a_camera_is_asked_and_what_it_does_not_do_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for OpenCV's camera that has one size and takes any rate."""

    class Camera:
        def __init__(self, index: int) -> None:
            self.values = {cv2.CAP_PROP_FRAME_WIDTH: 640.0, cv2.CAP_PROP_FRAME_HEIGHT: 480.0, cv2.CAP_PROP_FPS: 30.0}

        def isOpened(self) -> bool:  # noqa: N802
            return True

        def set(self, number: int, value: float) -> bool:
            if number == cv2.CAP_PROP_FPS:
                self.values[number] = float(value)
            return number == cv2.CAP_PROP_FPS

        def get(self, number: int) -> float:
            return self.values.get(number, 0.0)

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    said: list[str] = []
    source = FrameSource(cv2, Stream("0", warn=said.append, camera_options=CameraOptions((640, 360), 15)))
    assert source.rate == 15
    assert said == ["camera 0 has a height of 480, not of 360 as asked for"]


def frames_of(path: Path) -> list[int]:
    """The grey of each frame."""
    capture, greys = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        greys.append(round(float(read[1].mean()) / 50))
    return greys


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_a_frame_that_lasts_longer_is_repeated(suffix: str, tmp_path: Path) -> None:
    writer = VideoWriter(cv2, tmp_path / f"a{suffix}", 10.0)
    for grey, seconds in enumerate((0.7, 0.8, 1.1, 1.2)):
        writer.write(np.full((48, 64, 3), 50 * grey, np.uint8), seconds)
    writer.close()
    assert frames_of(tmp_path / f"a{suffix}") == [0, 1, 1, 1, 2, 3]
    assert writer.written is not None and writer.written.frames == 6


def test_a_long_pause_is_shortened_and_time_does_not_run_away(tmp_path: Path) -> None:
    writer = VideoWriter(cv2, tmp_path / "a.avi", 10.0)
    for seconds in (0.0, 1e6, 1e6 + 0.1):
        writer.write(np.zeros((48, 64, 3), np.uint8), seconds)
    writer.close()
    assert writer.written is not None and writer.written.frames <= LONGEST_HOLD * 10 + 3


def test_h264_is_written_where_there_is_an_encoder_and_else_what_opencv_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """OpenCV's wheels have no H.264 encoder but a Pi's: for one that has, MPEG-4 is written under its code."""
    real, tried = cv2.VideoWriter, list[int]()
    avc1, mpeg4 = (real.fourcc(*code) for code in ("avc1", "mp4v"))

    def opened(has_h264: bool) -> VideoWriter:
        def writer(path: str, code: int, rate: float, size: tuple[int, int]) -> Any:
            tried.append(code)
            os.write(2, b"no encoder\n")
            return real(path, mpeg4 if has_h264 or code != avc1 else avc1, rate, size)

        writer.fourcc = real.fourcc  # type: ignore[attr-defined]
        monkeypatch.setattr(cv2, "VideoWriter", writer)
        return VideoWriter(cv2, tmp_path / "a.mp4", 25.0)

    for has_h264, size, codec, codes in (
        (True, (48, 64), "H.264", [avc1]),
        (True, (47, 64), "MPEG-4", [mpeg4]),
        (False, (48, 64), "MPEG-4", [avc1, mpeg4]),
    ):
        tried.clear()
        written = opened(has_h264)
        written.write(np.zeros((*size, 3), np.uint8), 0.0)
        written.close()
        assert written.written is not None
        if not has_h264 and tried == [avc1]:
            pytest.skip("this OpenCV has an H.264 encoder")
        assert (written.written.codec, tried) == (codec, codes)
    assert capfd.readouterr().err.count("no encoder") == 2, "what is tried in vain says nothing"


def test_the_closing_line_and_the_last_json_line_say_what_was_written(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    writer = VideoWriter(cv2, tmp_path / "clip.avi", 10.0)
    for index in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8), index / 10)
    writer.close()
    out = tmp_path / "out"
    command = ["detect", str(bundle.path), str(tmp_path / "clip.avi"), "--draw", str(out)]
    assert main([*command, "--json", str(tmp_path / "a.jsonl")]) == 0
    drawn = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[-1])["drawn"]
    assert drawn["codec"] in ("H.264", "MPEG-4")
    assert {**drawn, "codec": ""} == {"codec": "", "frames": 3, "width": 64, "height": 48, "rate": 10.0}
    assert f"clip.mp4, 64x48, {drawn['codec']}, 3 frames at 10 frames/s" in capsys.readouterr().out
