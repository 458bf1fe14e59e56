"""Video files, cameras and streams as frames. Needs OpenCV, imported only here.

A source is the path of a file, a camera's index such as "0", a device such as "/dev/video0", or a URL.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, ImageError

VIDEO_SUFFIXES = (
    ".264", ".3gp", ".avi", ".flv", ".h264", ".h265", ".hevc", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4",
    ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv",
)  # fmt: skip
SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://")
DEFAULT_RATE = 25.0

Frame = NDArray[np.uint8]


def is_video(source: str) -> bool:
    """Whether `source` names a camera (a number or a device), a stream (a URL) or a video file, by its form alone.

    A folder is none, whatever its name.
    """
    if Path(source).is_dir():
        return False
    return is_live(source) or Path(source).suffix.lower() in VIDEO_SUFFIXES


def is_live(source: str) -> bool:
    """Whether `source` is a camera or a stream, whose frames come when they come."""
    return source.isdecimal() or source.startswith("/dev/video") or source.lower().startswith(SCHEMES)


class VideoSource:
    """An opened source.

    `rate` is in frames per second; `seconds` is the time of the last frame: in a file its place in the video, of a
    camera or stream the time since it was opened. Raises `ImageError` when the source cannot be opened, `BackendError`
    when OpenCV is missing.
    """

    def __init__(self, source: str) -> None:
        cv = opencv()
        if not is_live(source) and not Path(source).is_file():
            raise ImageError(f"{source} does not exist; give a video file, a camera's index or the URL of a stream")
        self._capture = cv.VideoCapture(int(source) if source.isdecimal() else source)
        if not self._capture.isOpened():
            self._capture.release()
            kind = "camera" if source.isdecimal() else "video"
            raise ImageError(f"{kind} {source} cannot be opened; check that it exists and that nothing else uses it")
        rate = float(self._capture.get(cv.CAP_PROP_FPS))
        self.rate = rate if 0.0 < rate < 1000.0 else DEFAULT_RATE
        self.seconds = 0.0
        self._position = cv.CAP_PROP_POS_MSEC
        self._live, self._opened, self._read = is_live(source), time.monotonic(), 0

    def frames(self, most: int | None = None) -> Iterator[Frame]:
        """Frames, uint8 BGR (h, w, 3), until the source ends or `most` were given."""
        while most is None or self._read < most:
            whole, frame = self._capture.read()
            if not whole:
                return
            self.seconds = self._time()
            self._read += 1
            yield frame

    def _time(self) -> float:
        if self._live:
            return time.monotonic() - self._opened
        told = float(self._capture.get(self._position)) / 1000.0
        # Some containers tell no times: then frames are evenly spaced, and time never goes back.
        return max(self.seconds, told if 0.0 < told < 1e9 else self._read / self.rate)

    def close(self) -> None:
        """Let go of the camera or file."""
        self._capture.release()


def opencv() -> ModuleType:
    """OpenCV. Raises `BackendError` when it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise BackendError("video needs OpenCV; run: pip install 'retinaface-edge[video]'") from error
    return cv2
