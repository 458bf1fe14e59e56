"""A video file made frame by frame by OpenCV: H.264 where its build has an encoder, each frame at its time."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from .atomic import keep_mode, part_of
from .frame_source import FrameSource, Stream
from .native_log import held_back

H264, MPEG4, MJPEG = ("avc1", "H.264"), ("mp4v", "MPEG-4"), ("MJPG", "MJPEG")
CODECS = {
    ".mp4": (H264, MPEG4),
    ".m4v": (H264, MPEG4),
    ".mov": (H264, MPEG4),
    ".mkv": (H264, MJPEG),
    ".avi": (MJPEG,),
}
"""By suffix, the codecs to try in order: the code that OpenCV knows, and the name for people."""
LONGEST_HOLD = 10.0
"""The longest time, in seconds, for which a frame is repeated when the next one came later."""

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class WrittenVideo:
    """A finished video file. `frames` includes repeated frames; `rate` is in frames per second."""

    path: Path
    codec: str
    frames: int
    width: int
    height: int
    rate: float

    def __str__(self) -> str:
        return f"{self.width}x{self.height}, {self.codec}, {self.frames} frames at {self.rate:.4g} frames/s"


class VideoWriter:
    """Writes a video whose frames have one size and a constant rate; a frame that was shown for longer is repeated.

    The first frame sets the size. The file gets its name only when it is closed and complete; `written` then describes
    it. Raises `ImageError` when it cannot be written.
    """

    def __init__(self, cv: ModuleType, path: Path, rate: float) -> None:
        if path.suffix.lower() not in CODECS:
            raise ImageError(f"{path}: a video is written as one of {', '.join(CODECS)}; choose one of these suffixes")
        self.written: WrittenVideo | None = None
        self._cv, self._path, self._rate = cv, path, rate
        self._part = part_of(path)
        self._size = (0, 0)
        self._codec = ""
        self._given = self._taken = 0
        self._last: Frame | None = None
        self._begin = 0.0
        self._writer: Any = None
        try:
            self._part.unlink(missing_ok=True)
            os.close(os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        except OSError as error:
            raise ImageError(f"{path} cannot be written ({error.strerror}); give another folder") from error

    def write(self, frame: Frame, seconds: float) -> None:
        """Add one frame, uint8 BGR (h, w, 3), shown from `seconds` on."""
        if self._writer is None:
            self._size, self._begin = (frame.shape[1], frame.shape[0]), seconds
            self._writer = self._opened()
        size = (frame.shape[1], frame.shape[0])
        # A stream may reconnect with another frame size, and OpenCV drops such frames silently.
        frame = frame if size == self._size else self._cv.resize(frame, self._size)
        waits = min(seconds - self._begin - self._given / self._rate, LONGEST_HOLD)
        for _ in range(round(waits * self._rate) if self._last is not None else 0):
            self._add(self._last)
        if waits == LONGEST_HOLD:  # the rest of a longer gap is cut out
            self._begin = seconds - self._given / self._rate
        self._last = frame
        self._add(frame)

    def close(self) -> None:
        """Finish the file, or leave none if it has no frame. Raises `ImageError` when frames are missing."""
        if self._writer is None or not self._writer.isOpened():
            self._part.unlink(missing_ok=True)
            return
        self._writer.release()
        if not (frames := self._complete_frames()):
            self._part.unlink(missing_ok=True)
            raise ImageError(f"{self._path} cannot be written completely; check that the disk is not full")
        keep_mode(self._path, self._part)
        os.replace(self._part, self._path)
        self.written = WrittenVideo(self._path, self._codec, frames, *self._size, self._rate)

    def _add(self, frame: Frame | None) -> None:
        self._given += 1
        self._writer.write(frame)  # an interrupt that arrived meanwhile is raised here
        self._taken += 1

    def _opened(self) -> Any:
        for code, name in CODECS[self._path.suffix.lower()]:
            if name == H264[1] and any(side % 2 for side in self._size):
                continue  # 4:2:0 needs even sides
            last = name != H264[1]
            with held_back(lambda line, last=last: last):  # type: ignore[misc]
                writer = self._cv.VideoWriter(
                    str(self._part), self._cv.VideoWriter.fourcc(*code), self._rate, self._size
                )
            if writer.isOpened():
                self._codec = name
                return writer
        raise ImageError(f"{self._path} cannot be written; check the folder, and that this OpenCV has codecs")

    def _complete_frames(self) -> int:
        """The number of frames in the file, 0 if some are missing.

        OpenCV reports no failed write. After one, FFmpeg writes no more, so the index at the end, or frames before it,
        are missing.
        """
        try:
            with closing(FrameSource(self._cv, Stream(str(self._part)))) as written:
                frames = written.promised or 0
                return frames if self._taken <= frames <= self._given and written.has_frame(frames - 1) else 0
        except ImageError:
            return 0
