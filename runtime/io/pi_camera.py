"""The camera of a Raspberry Pi by Picamera2, which is on the Pi's own system and imported only here."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError

DEFAULT_SIZE = (640, 480)
BLUE_GREEN_RED = "RGB888"
"""Picamera2 names formats by their order in memory from the last byte on: this one is BGR, as OpenCV has it."""


class PiCamera:
    """An opened camera, with the calls of OpenCV's `VideoCapture` that `FrameSource` makes.

    Raises `BackendError` when Picamera2 is not installed. Whether the camera is there, `isOpened` says.
    """

    def __init__(self, index: int, size: tuple[int, int] | None, rate: float | None, buffer: int | None) -> None:
        try:
            from picamera2 import Picamera2
        except ImportError as error:
            raise BackendError(
                "the Pi's camera needs Picamera2; run: sudo apt install python3-picamera2, and make the environment "
                "with: python3 -m venv --system-site-packages"
            ) from error
        self._camera: Any = None
        settings: dict[str, Any] = {"main": {"size": size or DEFAULT_SIZE, "format": BLUE_GREEN_RED}}
        if rate is not None:
            settings["controls"] = {"FrameRate": rate}
        if buffer is not None:
            settings["buffer_count"] = buffer
        try:
            self._camera = Picamera2(index)
            self._camera.configure(self._camera.create_video_configuration(**settings))
            self._camera.start()
        except (IndexError, RuntimeError):  # no such camera, or another program has it
            self.release()

    def isOpened(self) -> bool:  # noqa: N802  # OpenCV's name
        """Whether frames can come."""
        return self._camera is not None

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        """The next frame, uint8 BGR (h, w, 3); False when the camera was lost."""
        try:
            return True, np.asarray(self._camera.capture_array("main"), np.uint8)
        except (AttributeError, RuntimeError, TimeoutError):
            return False, None

    def get(self, _: int) -> float:
        """What OpenCV's cameras say of themselves; 0 says nothing."""
        return 0.0

    def release(self) -> None:
        """Let go of the camera."""
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.stop()
            camera.close()
