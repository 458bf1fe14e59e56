"""A source that never ends: cameras and streams reconnect, a video file starts over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from retinaface_edge.runtime.errors import ImageError
from retinaface_edge.runtime.io.frame_source import Frame, FrameSource, Stream, opencv
from retinaface_edge.runtime.text import address

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds before the first and the longest wait to reconnect; each wait is twice the one before."""
GIVE_UP_AFTER = 3
"""A file that gives no frame so many times in a row is not a video."""


class Opened(Protocol):
    """What an opened source must have; `FrameSource` does."""

    rate: float

    def frames(self, most: int | None = None) -> Iterator[Frame]:
        """Frames until it ends."""

    def close(self) -> None:
        """Close it."""


def open_source(source: Stream) -> Opened:
    """Open a source by OpenCV. Raises `ImageError`, and `BackendError` when OpenCV is missing."""
    return FrameSource(opencv(), source)


@dataclass
class SourceState:
    """State of the source: whether frames arrive, how often it was reconnected, and the last error."""

    connected: bool = False
    reconnects: int = 0
    error: str = ""


class EndlessSource:
    """Frames of `source` until `stop` is set.

    A camera or stream is read by a thread of its own that keeps the newest frame only: a slow reader gets fewer frames,
    never old ones. A file is played at its own rate. When the source ends or fails, it is opened again, after a wait
    that doubles up to `LONGEST_DELAY` and begins anew once a frame has come. Raises `ImageError` when a file cannot be
    played at all, and `BackendError` when what opens the source is not installed.
    """

    def __init__(
        self, source: str | Stream, stop: threading.Event, opener: Callable[[Stream], Opened] = open_source
    ) -> None:
        self.state = SourceState()
        self._source = source if isinstance(source, Stream) else Stream(source)
        self._stop, self._open = stop, opener
        self._live = self._source.live

    def frames(self) -> Iterator[Frame]:
        """The frames."""
        return self._newest() if self._live else self._paced()

    def _newest(self) -> Iterator[Frame]:
        slot: list[Frame] = []
        failure: list[Exception] = []
        new_frame = threading.Condition()

        def read() -> None:
            try:
                for frame in self._reconnected():
                    with new_frame:
                        slot[:] = [frame]
                        new_frame.notify()
            except Exception as error:  # raised below, where it is heard
                failure.append(error)
            with new_frame:
                new_frame.notify()

        # A daemon: OpenCV may wait for a lost stream for half a minute, and nobody waits for that at the end.
        threading.Thread(target=read, name="retinaface-edge-source", daemon=True).start()
        while not self._stop.is_set():
            with new_frame:
                new_frame.wait_for(lambda: slot or failure or self._stop.is_set(), timeout=0.5)
                taken, slot[:] = slot[:], []
            yield from taken
            if failure:
                raise failure[0]

    def _paced(self) -> Iterator[Frame]:
        due = time.monotonic()
        for frame in self._reconnected():
            yield frame
            due = max(due + 1.0 / self._rate, time.monotonic())
            self._stop.wait(due - time.monotonic())

    def _reconnected(self) -> Iterator[Frame]:
        delay, empty = FIRST_DELAY, 0
        while not self._stop.is_set():
            frames = 0
            try:
                with closing(self._open(self._source)) as opened:
                    self._rate = opened.rate
                    for frame in opened.frames():
                        self.state.connected, self.state.error = True, ""
                        frames += 1
                        yield frame
                        if self._stop.is_set():
                            return
                self.state.error = f"{address(self._source.address)} ended"
            except ImageError as error:
                self.state.error = str(error)
                if not self._live:
                    raise
            self.state.connected = self.state.connected and not self._live and frames > 0
            empty = 0 if frames else empty + 1
            if not self._live and empty == GIVE_UP_AFTER:
                raise ImageError(
                    f"{address(self._source.address)} gives no frame; check that it is a video that OpenCV can read"
                )
            if frames:
                delay = FIRST_DELAY
            if self._live:
                self._stop.wait(delay)
                delay = min(2.0 * delay, LONGEST_DELAY)
                self.state.reconnects += 1
