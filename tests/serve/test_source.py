"""Sources that end, fail and come back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from typing import Any, cast

import numpy as np
import pytest

from retinaface_edge.runtime import BackendError, Detector, ImageError, Spec
from retinaface_edge.runtime.io.frame_source import is_video
from retinaface_edge.runtime.ops.faces import Faces
from retinaface_edge.serve.pipeline import Moment, Pipeline, Settings, Speed
from retinaface_edge.serve.source import LONGEST_DELAY, EndlessSource


class Stop(threading.Event):
    """An event whose waits are noted and take no time."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return self.is_set()


class Camera:
    """Gives `frames` frames of one value and then ends; an opener of it fails as often as it is told to."""

    rate = 1000.0

    def __init__(self, frames: int, value: int = 0) -> None:
        self._frames, self._value, self.closed = frames, value, False

    def frames(self, most: int | None = None) -> Iterator[np.ndarray]:
        for _ in range(self._frames):
            yield np.full((4, 6, 3), self._value, np.uint8)

    def close(self) -> None:
        self.closed = True


def test_a_lost_camera_is_reopened_after_waits_that_double_up_to_a_limit() -> None:
    stop, opened = Stop(), []

    def opener(source: str) -> Camera:
        opened.append(source)
        if 2 <= len(opened) <= 9:
            raise ImageError("camera 0 cannot be opened")
        return Camera(2, len(opened))

    source = EndlessSource("0", stop, opener)
    values = [int(frame[0, 0, 0]) for frame in islice(source._reconnected(), 6)]
    assert values == [1, 1, 10, 10, 11, 11]
    # One wait after the frames ended, eight after failures, and the first one again after frames have come.
    assert stop.waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 0.5]
    assert max(stop.waits) == LONGEST_DELAY and source.state.reconnects == 10


def test_the_state_says_that_the_camera_is_lost_and_why() -> None:
    stop = Stop()
    source = EndlessSource("rtsp://camera/1", stop, lambda _: Camera(1))
    frames = source._reconnected()
    next(frames)
    assert source.state.connected and not source.state.error
    seen: list[bool] = []
    stop.wait = lambda timeout=None: seen.append(source.state.connected) or False  # type: ignore[method-assign,func-returns-value]
    next(frames)
    assert seen == [False], "while it waits to reconnect, it is not connected"


def test_viewers_are_not_told_the_password_of_the_camera() -> None:
    source = EndlessSource("rtsp://admin:secret@camera/1?key=secret", Stop(), lambda _: Camera(1))
    list(islice(source._reconnected(), 2))
    assert source.state.error == ""
    frames = source._reconnected()
    next(frames)
    source._open = lambda _: Camera(0)
    source._stop.wait = lambda timeout=None: source._stop.set() or True  # type: ignore[method-assign,func-returns-value]
    assert list(frames) == []
    assert source.state.error == "rtsp://***@camera/1?… ended"


def test_a_slow_reader_of_a_camera_gets_the_newest_frame() -> None:
    stop, taken, given = threading.Event(), threading.Event(), threading.Event()

    class Fast(Camera):
        def frames(self, most: int | None = None) -> Iterator[np.ndarray]:
            for value in range(100):
                yield np.full((2, 2, 3), value, np.uint8)
                taken.wait(20)
            given.set()
            stop.wait(20)

    source = EndlessSource("0", stop, lambda _: Fast(0))
    frames = source.frames()
    first = int(next(frames)[0, 0, 0])
    taken.set()
    assert given.wait(20)
    assert first == 0 and int(next(frames)[0, 0, 0]) == 99
    stop.set()


def test_a_file_starts_over_and_one_without_frames_is_refused() -> None:
    stop = Stop()
    source = EndlessSource("clip.mp4", stop, lambda _: Camera(3))
    assert len(list(islice(source.frames(), 10))) == 10
    assert source.state.connected and source.state.reconnects == 0
    with pytest.raises(ImageError, match="gives no frame"):
        next(EndlessSource("clip.mp4", stop, lambda _: Camera(0)).frames())


def test_every_opened_source_is_closed() -> None:
    stop, cameras = Stop(), []

    def opener(_: str) -> Camera:
        cameras.append(Camera(1))
        return cameras[-1]

    frames = EndlessSource("0", stop, opener)._reconnected()
    list(islice(frames, 5))
    frames.close()
    assert len(cameras) == 5 and all(camera.closed for camera in cameras)


def test_devices_are_cameras_and_a_folder_with_a_number_for_a_name_is_a_folder(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_video("/dev/video0") and is_video("rtsps://camera/1") and is_video("a.TS") and is_video("0")
    monkeypatch.chdir(tmp_path)  # type: ignore[arg-type]
    (tmp_path / "0").mkdir()  # type: ignore[operator]
    assert not is_video("0")


def test_what_no_reconnecting_helps_against_ends_the_source() -> None:
    def opener(source: str) -> Camera:
        raise BackendError("video needs OpenCV")

    with pytest.raises(BackendError, match="needs OpenCV"):
        next(EndlessSource("0", threading.Event(), opener).frames())


def test_how_long_ago_a_frame_came_does_not_depend_on_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A board without a battery believes that it is 1970 until the network is there."""
    network = cast("Any", None)
    pipeline = Pipeline(Detector(Spec(64, 64), network), EndlessSource("0", Stop()), Settings(), threading.Event())
    now = [1000.0]
    monkeypatch.setattr("retinaface_edge.serve.pipeline.time.monotonic", lambda: now[0])
    faces = Faces(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2)))
    for clock in (0.0, 1.8e9, 5.0):
        pipeline._publish(Moment(1, clock, np.zeros((4, 4, 3), np.uint8), faces, Speed()))
        assert pipeline.age == 0.0
        now[0] += 60.0
        assert pipeline.age == 60.0
