"""Faces in a video file, a camera or a stream, drawn live or into a video."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .detector import Detector, Times
from .errors import BackendError, ImageError
from .io.anonymise import anonymise
from .io.atomic import keep_mode, part_of
from .io.frame_source import DEFAULT_RATE, Frame, FrameSource, Stream, is_video, opencv
from .large_frames import detect_in_tiles
from .mesh.topology import topology
from .ops.faces import Faces
from .text import address
from .tracking import Tracker

__all__ = ["DEFAULT_RATE", "Drawing", "Looking", "Report", "Seen", "Stream", "detect_video", "is_video"]

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".avi": "MJPG", ".mkv": "MJPG"}
WINDOW = "retinaface-edge (q closes)"
BOX, LANDMARK, WIRE = (118, 230, 0), (0, 214, 255), (220, 255, 120)


@dataclass(frozen=True)
class Report:
    """How fast `frames` frames with `faces` faces went through, and the seconds of each part.

    `promised` is how many frames the source said it has, None where it does not say. `ended` says why it ended before
    its time, None where it did not. `whole` is whether it was read to its end.
    """

    frames: int
    faces: int
    seconds: float
    pre: float
    inference: float
    post: float
    promised: int | None = None
    ended: str | None = None
    whole: bool = False

    def __str__(self) -> str:
        total = self.pre + self.inference + self.post
        rate = self.frames / self.seconds if self.seconds > 0 else 0.0
        counts = f"{self.frames} frames, {self.faces} faces, {rate:.1f} frames/s"
        read = f"; read {self.frames} of {self.promised} frames" if self.whole and self.promised is not None else ""
        if total == 0.0:  # of tiles, only the whole is timed
            return counts + read
        parts = (("pre", self.pre), ("inference", self.inference), ("post", self.post))
        shares = ", ".join(f"{name} {seconds / total:.1%}" for name, seconds in parts)
        return f"{counts}: {shares} of the detector's time{read}"


@dataclass(frozen=True)
class Drawing:
    """Where frames go with their faces drawn: into the video `output`, and into a window with `show`.

    With `blur`, faces are covered instead, so that nobody can be recognised.
    """

    output: Path | None = None
    show: bool = False
    blur: bool = False


@dataclass(frozen=True)
class Looking:
    """How faces are looked for: the least score, meshes, tiles for large frames, ids across frames."""

    score_threshold: float = 0.5
    mesh: bool = False
    tiles: bool = False
    track: bool = False


@dataclass(frozen=True)
class Seen:
    """A frame with its faces. `seconds` is its time in the video; `ids` (n,) only where faces are tracked."""

    index: int
    seconds: float
    frame: Frame = field(repr=False)
    faces: Faces
    ids: NDArray[np.int64] | None = None


def detect_video(
    detector: Detector,
    source: str | Stream,
    each: Callable[[Seen], None] = lambda seen: None,
    drawing: Drawing = Drawing(),
    looking: Looking = Looking(),
    max_frames: int | None = None,
) -> Report:
    """Detect faces in every frame of `source`: a video file, a camera's index such as "0", or the URL of a stream.

    `each` gets every frame with its faces. Frames are drawn as `drawing` says, with meshes faces are wireframes; the
    drawn video has its name once it is whole. Ends with the video, after `max_frames`, or when `q` is pressed in the
    window; the report tells whether the source failed or ended before its time. A `Stream` says more about a source:
    that it is to be opened again when it is lost. Raises `ImageError` when the source cannot be opened or the video not
    written, `BackendError` when OpenCV or its windows are missing.
    """
    cv = opencv()
    stream = source if isinstance(source, Stream) else Stream(source)
    frames_seen, faces_seen, times, stopped = 0, 0, Times(), False
    with closing(FrameSource(cv, stream)) as opened:
        writing = closing(_Writer(cv, drawing.output, opened.rate)) if drawing.output else nullcontext()
        with writing as writer:
            begin = time.perf_counter()
            for seen in _seen(detector, opened, looking, times, max_frames):
                each(seen)
                frames_seen, faces_seen = frames_seen + 1, faces_seen + len(seen.faces)
                if drawing.output or drawing.show:
                    drawn = anonymise(seen.frame, seen.faces) if drawing.blur else _drawn(cv, seen)
                    if writer:
                        writer.write(drawn)
                    if drawing.show and not _shown(cv, drawn):
                        stopped = True
                        break
            seconds = time.perf_counter() - begin
        promised, ended = opened.promised, None if stopped else opened.ended
    if frames_seen == 0:
        raise ImageError(f"{address(stream.address)} gives no frame; check that it is a video that OpenCV can read")
    whole = not stopped and frames_seen != max_frames
    parts = (times.pre, times.inference, times.post)
    return Report(frames_seen, faces_seen, seconds, *parts, promised, ended, whole)


def _seen(detector: Detector, opened: FrameSource, looking: Looking, times: Times, most: int | None) -> Iterator[Seen]:
    # detect_many reads ahead; a frame waits here until its faces come.
    waiting: deque[tuple[Frame, float]] = deque()

    def frames() -> Iterator[Frame]:
        for frame in opened.frames(most):
            waiting.append((frame, opened.seconds))
            yield frame

    tracker = Tracker() if looking.track else None
    for index, faces in enumerate(_faces(detector, frames(), looking, times)):
        frame, seconds = waiting.popleft()
        yield Seen(index, seconds, frame, faces, tracker.update(faces) if tracker else None)


def _faces(detector: Detector, frames: Iterator[Frame], looking: Looking, times: Times) -> Iterator[Faces]:
    if looking.tiles:
        return (detect_in_tiles(detector, frame, looking.score_threshold, mesh=looking.mesh) for frame in frames)
    return detector.detect_many(frames, looking.score_threshold, times=times, mesh=looking.mesh)


class _Writer:
    """A video file, made when its first frame tells the size; it has its name when it is closed."""

    def __init__(self, cv: ModuleType, path: Path, rate: float) -> None:
        if path.suffix.lower() not in CODECS:
            raise ImageError(f"{path}: a video is written as one of {', '.join(CODECS)}; choose such a name")
        self._cv, self._path, self._rate = cv, path, rate
        self._part = part_of(path)
        self._size = (0, 0)
        self._writer: Any = None
        try:
            self._part.unlink(missing_ok=True)
            os.close(os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        except OSError as error:
            raise ImageError(f"{path} cannot be written ({error.strerror}); give another folder") from error

    def write(self, frame: Frame) -> None:
        size = (frame.shape[1], frame.shape[0])
        if self._writer is None:
            code = self._cv.VideoWriter.fourcc(*CODECS[self._path.suffix.lower()])
            self._writer, self._size = self._cv.VideoWriter(str(self._part), code, self._rate, size), size
            if not self._writer.isOpened():
                raise ImageError(f"{self._path} cannot be written; check the folder, and that this OpenCV has codecs")
        # A stream may come back in another size, and the writer drops such frames without a word.
        self._writer.write(frame if size == self._size else self._cv.resize(frame, self._size))

    def close(self) -> None:
        if self._writer is None or not self._writer.isOpened():
            self._part.unlink(missing_ok=True)
            return
        self._writer.release()
        keep_mode(self._path, self._part)
        os.replace(self._part, self._path)


def _drawn(cv: ModuleType, seen: Seen) -> Frame:
    """The frame, drawn on in place: it came from the decoder and nobody else has it."""
    frame = seen.frame
    line = max(1, round(max(frame.shape[:2]) / 320))
    for index, face in enumerate(seen.faces):
        x1, y1, x2, y2 = (round(value) for value in face.box)
        cv.rectangle(frame, (x1, y1), (x2, y2), BOX, line)
        label = f"{face.score:.2f}" if seen.ids is None else f"#{seen.ids[index]} {face.score:.2f}"
        cv.putText(frame, label, (x1, y1 - 2 * line), cv.FONT_HERSHEY_SIMPLEX, 0.3 + line / 5, BOX, line)
        if face.vertices is not None:
            edges = np.rint(face.vertices[topology().edges, :2]).astype(np.int32)
            cv.polylines(frame, list(edges), False, WIRE, 1)
            continue
        for x, y in face.landmarks:
            cv.circle(frame, (round(x), round(y)), line, LANDMARK, -1)
    return frame


def _shown(cv: ModuleType, frame: Frame) -> bool:
    """Show a frame; False once the user has asked to stop."""
    try:
        cv.imshow(WINDOW, frame)
        return bool(cv.waitKey(1) & 0xFF != ord("q"))
    except cv.error as error:
        raise BackendError(
            "this OpenCV cannot open a window; install opencv-python instead of opencv-python-headless, "
            "or write a video file"
        ) from error
