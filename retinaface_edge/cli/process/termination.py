"""SIGTERM as Ctrl-C: `systemctl stop` and `docker stop` end a command as a person at the terminal does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """The command was asked to end by SIGTERM. Whatever heeds Ctrl-C heeds it."""


@contextmanager
def heeding_termination() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated`, once. Elsewhere than in the main thread nothing is changed."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process as it is
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
