"""Frames of a video file, a camera or a stream, by OpenCV: what it promised, and why it ended."""

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
from .untrusted import open_file

VIDEO_SUFFIXES = (".3gp", ".avi", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm")
SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://")
DEVICE = "/dev/video"
DEFAULT_RATE = 25.0
MOST_BYTES = 1 << 62
"""A video is read as it is decoded, so its size is no matter."""
MOST_FRAMES = 10**9
WAIT_MILLISECONDS = 10_000
"""How long a stream may take to open and to give its next frame."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds between attempts to open a source again: doubled from the one to the other, begun anew by a frame."""

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Stream:
    """A source of frames: a file, the index of a camera or a URL.

    With `reconnect`, a camera or stream that cannot be opened or is lost is opened again and again, and `warn` is told.
    """

    address: str
    reconnect: bool = False
    warn: Callable[[str], None] = lambda text: None

    @property
    def live(self) -> bool:
        """Whether it is a camera or a stream, which has no end of its own."""
        return self.camera is not None or self.address.lower().startswith(SCHEMES)

    @property
    def camera(self) -> int | None:
        """The index of a camera, written as such or as a device: `0` or `/dev/video0`."""
        index = self.address.removeprefix(DEVICE)
        return int(index) if index.isdecimal() else None


def is_video(source: str) -> bool:
    """Whether `source` names a camera (a number or a device), a stream (a URL) or a video file, by its form alone.

    A folder is none, whatever its name.
    """
    if Path(source).is_dir():
        return False
    return Stream(source).live or Path(source).suffix.lower() in VIDEO_SUFFIXES


class FrameSource:
    """An opened source. Raises `ImageError` when it cannot be opened, or is a file that is no video."""

    _capture: Any = None

    def __init__(self, cv: ModuleType, stream: Stream) -> None:
        self._cv, self._stream = cv, stream
        self._pause = FIRST_PAUSE
        self.ended: str | None = None
        """Why the source ended before its time, once `frames` has ended; None when it did not."""
        if not stream.live:
            _check_file(Path(stream.address))
        while not self._open():
            if not (stream.live and stream.reconnect):
                kind = "video" if stream.camera is None else "camera"
                raise ImageError(
                    f"{kind} {address(stream.address)} cannot be opened; check that it exists and that nothing else "
                    "uses it"
                )
            self._wait("cannot be opened")
        rate = float(self._capture.get(cv.CAP_PROP_FPS))
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
            whole, frame = self._capture.read()
            if whole:
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

    def close(self) -> None:
        """Let go of it."""
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
        if self._stream.camera is not None:
            self._capture = cv.VideoCapture(self._stream.camera)
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

    def _wait(self, what: str) -> None:
        self._stream.warn(f"{address(self._stream.address)} {what}; trying again in {self._pause:.0f} s")
        time.sleep(self._pause)
        self._pause = min(2.0 * self._pause, LONGEST_PAUSE)


def _check_file(path: Path) -> None:
    """Refuse what is no video: FFmpeg also reads lists of other files, whatever their name. Raises `ImageError`."""
    if not path.is_file():
        raise ImageError(
            f"{address(str(path))} does not exist; give a video file, a camera's index or the URL of a stream"
        )
    try:
        with open_file(path, MOST_BYTES) as file:
            head = file.read(256)
    except OSError as error:
        raise ImageError(f"{address(str(path))} cannot be read ({error.strerror})") from error
    if not _is_container(head):
        raise ImageError(
            f"{address(str(path))} cannot be opened: its content is no AVI, MP4, MOV, Matroska, WebM, MPEG or MJPEG"
        )


def _is_container(head: bytes) -> bool:
    """Whether these are the first bytes of one of the formats that `VIDEO_SUFFIXES` mean."""
    return (
        (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
        or head.startswith((b"\x1a\x45\xdf\xa3", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"\xff\xd8\xff"))
        or (head[:1] == b"G" and head[188:189] == b"G")
    )


def opencv() -> ModuleType:
    """OpenCV. Raises `BackendError` when it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise BackendError("video needs OpenCV; run: pip install 'retinaface-edge[video]'") from error
    return cv2
