"""Frames from a video file, a camera or a stream, read with OpenCV."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, ImageError
from ..text import address
from .file_kinds import HEAD_BYTES, is_container, picture_format
from .pi_camera import PiCamera
from .untrusted import open_file

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".h264", ".h265", ".m4v", ".mjpeg", ".mkv"),
    *(".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"),
)
SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://")
DEVICE = "/dev/video"
PI_CAMERA = "picamera"
DEFAULT_RATE = 25.0
MOST_BYTES = 1 << 62
"""A video is read as it is decoded, so its size does not matter."""
MOST_FRAMES = 10**9
WAIT_MILLISECONDS = 10_000
"""How long a stream may take to open and to give its next frame."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds between attempts to open a source again: doubled from the one to the other, begun anew by a frame."""

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class CameraOptions:
    """What a camera is asked for: frames of a size (width, height), a rate per second, and how many it may hold ready.

    None leaves it as the camera has it. A camera gives what it can: another size or rate is told by a warning.
    """

    size: tuple[int, int] | None = None
    rate: float | None = None
    buffer: int | None = None


@dataclass(frozen=True)
class Stream:
    """A source of frames: a file, the index of a camera or a URL; `picamera` or `picamera:1` is a Pi's own camera.

    With `reconnect`, a camera or stream that cannot be opened or is lost is reopened until it works, with a message to
    `warn` each time.
    `camera_options` is what a camera is asked for.
    """

    address: str
    reconnect: bool = False
    warn: Callable[[str], None] = lambda text: None
    camera_options: CameraOptions = CameraOptions()

    @property
    def live(self) -> bool:
        """Whether it is a camera or a stream, which has no end of its own."""
        own = self.camera is not None or self.pi_camera is not None
        return own or self.address.lower().startswith(SCHEMES)

    @property
    def camera(self) -> int | None:
        """The index of a camera, written as such or as a device: `0` or `/dev/video0`."""
        index = self.address.removeprefix(DEVICE)
        return int(index) if index.isdecimal() else None

    @property
    def pi_camera(self) -> int | None:
        """The number of a Pi's own camera, `picamera` being the first."""
        name, colon, number = self.address.partition(":")
        if name != PI_CAMERA or bool(colon) != bool(number):
            return None
        return int(number or "0") if (number or "0").isdecimal() else None


def is_video(source: str) -> bool:
    """Whether `source` names a camera (a number or a device), a stream (a URL) or a video file.

    A file counts as a video by its suffix or by its content. A folder never does.
    """
    path = Path(source)
    if path.is_dir():
        return False
    if Stream(source).live or path.suffix.lower() in VIDEO_SUFFIXES:
        return True
    try:
        with open_file(path, MOST_BYTES) as file:
            head = file.read(HEAD_BYTES)
    except (OSError, ValueError):
        return False
    return picture_format(head) is None and is_container(head)


class FrameSource:
    """An opened source. Raises `ImageError` when it cannot be opened, or is a file that is not a video."""

    _capture: Any = None

    def __init__(self, cv: ModuleType, stream: Stream) -> None:
        self._cv, self._stream = cv, stream
        self._pause = FIRST_PAUSE
        self.ended: str | None = None
        """Why the source ended before its time, once `frames` has ended; None when it did not."""
        cameras = stream.camera is not None or stream.pi_camera is not None
        if not cameras and stream.camera_options != CameraOptions():
            raise ImageError(f"{address(stream.address)} is no camera: it has its own size and rate; leave --source-…")
        if not stream.live:
            _check_file(Path(stream.address))
        while not self._open():
            if not (stream.live and stream.reconnect):
                kind = "camera" if cameras else "video"
                raise ImageError(
                    f"{kind} {address(stream.address)} cannot be opened; check that it exists and that nothing else "
                    "uses it"
                )
            self._wait("cannot be opened")
        rate = float(self._capture.get(cv.CAP_PROP_FPS)) or stream.camera_options.rate or 0.0
        self.rate = rate if 0.0 < rate < 1000.0 else DEFAULT_RATE
        count = float(self._capture.get(cv.CAP_PROP_FRAME_COUNT))
        self.promised = int(count) if 1.0 <= count < MOST_FRAMES else None
        """How many frames it said it has; None where it did not, as of a camera."""
        self.seconds = 0.0
        """The time of the last frame: in a file its place, of a camera or stream since it was opened."""
        self._opened, self._read = time.monotonic(), 0

    def frames(self, most: int | None = None) -> Iterator[Frame]:
        """At most `most` frames."""
        count = 0
        while most is None or count < most:
            read, frame = self._capture.read()
            if read:
                self._pause = FIRST_PAUSE
                count += 1
                self.seconds = self._time()
                self._read += 1
                yield frame
            elif self._stream.live and self._stream.reconnect and self.promised is None:
                self._wait("was lost")
                while not self._open():
                    self._wait("cannot be opened")
            else:
                self.ended = self._why(count)
                return

    def has_frame(self, index: int) -> bool:
        """Whether the frame of a video file at that place can be decoded."""
        return bool(self._capture.set(self._cv.CAP_PROP_POS_FRAMES, index) and self._capture.read()[0])

    def close(self) -> None:
        """Close it."""
        self._capture.release()

    def _time(self) -> float:
        if self._stream.live:
            return time.monotonic() - self._opened
        told = float(self._capture.get(self._cv.CAP_PROP_POS_MSEC)) / 1000.0
        # Some containers tell no times: then frames are evenly spaced, and time never goes back.
        return max(self.seconds, told if 0.0 < told < MOST_FRAMES else self._read / self.rate)

    def _why(self, count: int) -> str | None:
        if self.promised is None:
            return f"{address(self._stream.address)} was lost after {count} frames" if self._stream.live else None
        # Some containers tell a duration and a rate, whose product may be a frame too many.
        missing = self.promised - count
        if missing <= max(1, self.promised // 100):
            return None
        return (
            f"{address(self._stream.address)} ended after {count} of {self.promised} frames: it is damaged or cut short"
        )

    def _open(self) -> bool:
        if self._capture is not None:
            self._capture.release()
        name, cv = self._stream.address, self._cv
        if self._stream.pi_camera is not None:
            wanted = self._stream.camera_options
            self._capture = PiCamera(self._stream.pi_camera, wanted.size, wanted.rate, wanted.buffer)
        elif self._stream.camera is not None:
            self._capture = cv.VideoCapture(self._stream.camera)
            self._ask_camera()
        elif cv.CAP_FFMPEG not in cv.videoio_registry.getStreamBackends():
            self._capture = cv.VideoCapture(name)
        elif self._stream.live:
            waiting = [
                cv.CAP_PROP_OPEN_TIMEOUT_MSEC,
                WAIT_MILLISECONDS,
                cv.CAP_PROP_READ_TIMEOUT_MSEC,
                WAIT_MILLISECONDS,
            ]
            self._capture = cv.VideoCapture(name, cv.CAP_FFMPEG, waiting)
        else:  # a whole path, which FFmpeg cannot take for a protocol such as `concat:`
            self._capture = cv.VideoCapture(os.path.abspath(name), cv.CAP_FFMPEG)
        return bool(self._capture.isOpened())

    def _ask_camera(self) -> None:
        """Ask an opened camera for what was wanted, and warn of what it does not do."""
        cv, wanted = self._cv, self._stream.camera_options
        width, height = wanted.size or (None, None)
        properties = (
            ("width", cv.CAP_PROP_FRAME_WIDTH, width),
            ("height", cv.CAP_PROP_FRAME_HEIGHT, height),
            ("rate", cv.CAP_PROP_FPS, wanted.rate),
            ("buffer", cv.CAP_PROP_BUFFERSIZE, wanted.buffer),
        )
        asked = [(name, number, value) for name, number, value in properties if value is not None]
        for _, number, value in asked:
            self._capture.set(number, value)
        for name, number, value in asked if self._capture.isOpened() else ():
            if (given := float(self._capture.get(number))) != value:
                self._stream.warn(
                    f"camera {address(self._stream.address)} has a {name} of {given:g}, not of {value:g} as asked for"
                )

    def _wait(self, what: str) -> None:
        self._stream.warn(f"{address(self._stream.address)} {what}; trying again in {self._pause:.0f} s")
        time.sleep(self._pause)
        self._pause = min(2.0 * self._pause, LONGEST_PAUSE)


def _check_file(path: Path) -> None:
    """Raise `ImageError` for files that are not videos: FFmpeg also reads playlists of other files."""
    if not path.is_file():
        raise ImageError(
            f"{address(str(path))} does not exist; give a video file, a camera's index or the URL of a stream"
        )
    try:
        with open_file(path, MOST_BYTES) as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise ImageError(f"{address(str(path))} cannot be read ({error.strerror})") from error
    if not is_container(head):
        raise ImageError(
            f"{address(str(path))} cannot be opened: its content is not a known video format; "
            "convert it to MP4, Matroska or AVI"
        )


def opencv() -> ModuleType:
    """OpenCV. Raises `BackendError` when it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise BackendError("video needs OpenCV; run: pip install 'retinaface-edge[video]'") from error
    return cv2
