"""The detector on an endless source, in a thread of its own, and the latest result for all viewers.

The detector never waits for a viewer: it stores its latest result and goes on. A viewer takes the latest one when it
is ready, and skips those in between.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from retinaface_edge.runtime.detector import Detector, Times
from retinaface_edge.runtime.io.frame_source import Frame
from retinaface_edge.runtime.ops.faces import Faces

from .source import EndlessSource

WINDOW_SECONDS = 2.0


@dataclass(frozen=True)
class Speed:
    """Frames per second, and the share of preprocessing, network and postprocessing in the detector's time."""

    rate: float = 0.0
    pre: float = 0.0
    inference: float = 0.0
    post: float = 0.0


@dataclass(frozen=True)
class Moment:
    """One frame and its faces. `number` counts from 1; `time` is seconds since 1970."""

    number: int
    time: float
    frame: Frame = field(repr=False)
    faces: Faces
    speed: Speed


@dataclass(frozen=True)
class Settings:
    """How faces are detected."""

    score_threshold: float = 0.5
    mesh: bool = False


class Pipeline:
    """Runs `detector` over `source` from `start` to `stop`; used from one event loop.

    `latest` is the newest moment; `after` waits for a newer one. `failure` is what ended the thread, if anything did.
    """

    def __init__(self, detector: Detector, source: EndlessSource, settings: Settings, stop: threading.Event) -> None:
        self.source, self.settings = source, settings
        self.times, self.faces_seen = Times(), 0
        self.latest: Moment | None = None
        self._published = 0.0
        self.failure: Exception | None = None
        self._detector, self._stop = detector, stop
        self._thread = threading.Thread(target=self._run, name="retinaface-edge-detector", daemon=True)
        self._changed = asyncio.Event()
        self._wake_sent = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin; called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """End, and wait for the frame that is being worked on."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join, 5.0)
        self._wake()

    @property
    def stopped(self) -> bool:
        """Whether no further moment will come."""
        return self._stop.is_set()

    @property
    def age(self) -> float:
        """Seconds since the newest moment came, whatever is done to the clock meanwhile."""
        return time.monotonic() - self._published

    async def after(self, number: int) -> Moment | None:
        """The newest moment, once its number is above `number`; None when the pipeline has stopped."""
        while not self._stop.is_set():
            if self.latest is not None and self.latest.number > number:
                return self.latest
            await self._changed.wait()
        return None

    def _run(self) -> None:
        try:
            waiting: deque[Frame] = deque()  # detect_many reads one frame ahead
            window: deque[tuple[float, Times]] = deque()
            for faces in self._detector.detect_many(
                self._remembered(waiting), self.settings.score_threshold, times=self.times, mesh=self.settings.mesh
            ):
                window.append((time.monotonic(), replace(self.times)))
                while len(window) > 2 and window[-1][0] - window[0][0] > WINDOW_SECONDS:
                    window.popleft()
                self.faces_seen += len(faces)
                self._publish(Moment(self.times.frames, time.time(), waiting.popleft(), faces, _speed(window)))
        except Exception as error:  # shown to the person who waits for the server
            self.failure = error
        finally:
            self._stop.set()
            self._send_wake()

    def _remembered(self, waiting: deque[Frame]) -> Iterator[Frame]:
        for frame in self.source.frames():
            waiting.append(frame)
            yield frame

    def _publish(self, moment: Moment) -> None:
        self.latest, self._published = moment, time.monotonic()
        self._send_wake()

    def _send_wake(self) -> None:
        """Wake the viewers, once however many moments come before the event loop gets to it."""
        if self._loop is None or (self._wake_sent and not self._stop.is_set()):
            return
        self._wake_sent = True
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the event loop has ended first
            return

    def _wake(self) -> None:
        self._wake_sent = False
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _speed(window: deque[tuple[float, Times]]) -> Speed:
    (begin, first), (end, last) = window[0], window[-1]
    parts = [last.pre - first.pre, last.inference - first.inference, last.post - first.post]
    total = sum(parts)
    if end <= begin or total <= 0.0:
        return Speed()
    pre, inference, post = (part / total for part in parts)
    return Speed((last.frames - first.frames) / (end - begin), pre, inference, post)
