"""Faces in a video file, a camera or a stream, drawn live or into a video."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from .detector import Detector, Times
from .errors import BackendError, ImageError
from .io.anonymise import anonymise
from .io.frame_source import DEFAULT_RATE, Frame, FrameSource, Stream, is_video, opencv
from .io.video_writer import VideoWriter, WrittenVideo
from .large_frames import detect_in_tiles
from .mesh.topology import topology
from .ops.faces import Faces
from .text import address
from .tracking import Tracker

__all__ = ["DEFAULT_RATE", "Drawing", "DetectionOptions", "Report", "FrameFaces", "Stream", "detect_video", "is_video"]

WINDOW = "retinaface-edge (q closes)"
BOX, LANDMARK, WIRE = (118, 230, 0), (0, 214, 255), (220, 255, 120)


@dataclass(frozen=True)
class Report:
    """Speed of a run over `frames` frames with `faces` faces: the seconds in all and of each part.

    `promised` is the number of frames that the source declares, if it does. `ended` says why it ended before that, if
    it did. `complete` is whether it was read to its end. `written` is the
    video that was drawn.
    """

    frames: int
    faces: int
    seconds: float
    pre: float
    inference: float
    post: float
    promised: int | None = None
    ended: str | None = None
    complete: bool = False
    written: WrittenVideo | None = None

    def __str__(self) -> str:
        total = self.pre + self.inference + self.post
        rate = self.frames / self.seconds if self.seconds > 0 else 0.0
        counts = f"{self.frames} frames, {self.faces} faces, {rate:.1f} frames/s"
        read = f"; read {self.frames} of {self.promised} frames" if self.complete and self.promised is not None else ""
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
class DetectionOptions:
    """How faces are detected: the lowest score, meshes, tiles for large frames, ids across frames."""

    score_threshold: float = 0.5
    mesh: bool = False
    tiles: bool = False
    track: bool = False


@dataclass(frozen=True)
class FrameFaces:
    """A frame with its faces. `seconds` is its time in the video; `ids` (n,) only where faces are tracked."""

    index: int
    seconds: float
    frame: Frame = field(repr=False)
    faces: Faces
    ids: NDArray[np.int64] | None = None


def detect_video(
    detector: Detector,
    source: str | Stream,
    each: Callable[[FrameFaces], None] = lambda seen: None,
    drawing: Drawing = Drawing(),
    options: DetectionOptions = DetectionOptions(),
    max_frames: int | None = None,
) -> Report:
    """Detect faces in every frame of `source`: a video file, a camera's index such as "0", or the URL of a stream.

    `each` gets every frame with its faces. Frames are drawn as `drawing` says, faces with meshes as wireframes; the
    drawn video appears under its name once it is complete. Ends with the video, after `max_frames`, or when `q` is
    pressed in the window; the report tells whether the source failed or ended before its time. A `Stream` says more
    about a source: that it is to be opened again when it is lost. Raises `ImageError` when the source cannot be opened
    or the video not written, `BackendError` when OpenCV or its windows are missing.
    """
    cv = opencv()
    stream = source if isinstance(source, Stream) else Stream(source)
    frames_seen, faces_seen, times, stopped = 0, 0, Times(), False
    with closing(FrameSource(cv, stream)) as opened:
        writer = VideoWriter(cv, drawing.output, opened.rate) if drawing.output else None
        with closing(writer) if writer else nullcontext():
            begin = time.perf_counter()
            for seen in _seen(detector, opened, options, times, max_frames):
                each(seen)
                frames_seen, faces_seen = frames_seen + 1, faces_seen + len(seen.faces)
                if drawing.output or drawing.show:
                    drawn = anonymise(seen.frame, seen.faces) if drawing.blur else _drawn(cv, seen)
                    if writer:
                        writer.write(drawn, seen.seconds)
                    if drawing.show and not _shown(cv, drawn):
                        stopped = True
                        break
            seconds = time.perf_counter() - begin
        promised, ended = opened.promised, None if stopped else opened.ended
    if frames_seen == 0:
        raise ImageError(f"{address(stream.address)} gives no frame; check that it is a video that OpenCV can read")
    complete = not stopped and frames_seen != max_frames
    parts = (times.pre, times.inference, times.post)
    written = writer.written if writer else None
    return Report(frames_seen, faces_seen, seconds, *parts, promised, ended, complete, written)


def _seen(
    detector: Detector, opened: FrameSource, options: DetectionOptions, times: Times, most: int | None
) -> Iterator[FrameFaces]:
    # detect_many reads ahead; a frame waits here until its faces come.
    waiting: deque[tuple[Frame, float]] = deque()

    def frames() -> Iterator[Frame]:
        for frame in opened.frames(most):
            waiting.append((frame, opened.seconds))
            yield frame

    tracker = Tracker() if options.track else None
    for index, faces in enumerate(_faces(detector, frames(), options, times)):
        frame, seconds = waiting.popleft()
        yield FrameFaces(index, seconds, frame, faces, tracker.update(faces) if tracker else None)


def _faces(detector: Detector, frames: Iterator[Frame], options: DetectionOptions, times: Times) -> Iterator[Faces]:
    if options.tiles:
        return (detect_in_tiles(detector, frame, options.score_threshold, mesh=options.mesh) for frame in frames)
    return detector.detect_many(frames, options.score_threshold, times=times, mesh=options.mesh)


def _drawn(cv: ModuleType, seen: FrameFaces) -> Frame:
    """The frame with its faces drawn, in place: nothing else refers to the decoder's array."""
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
