"""SIGTERM as Ctrl-C: `systemctl stop` and `docker stop` end a command as a person at the terminal does."""

from __future__ import annotations

import inspect
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import FrameType

LATER_SECONDS = 0.02
OURS = __name__.partition(".")[0]


class Terminated(KeyboardInterrupt):
    """The command was asked to end by SIGTERM. Whatever heeds Ctrl-C heeds it."""


@dataclass
class Heard:
    """The exception of the signal that has come, if one has.

    A library may turn what its import or a call of it raised into an error of its own; it is the signal all the same.
    """

    interrupt: KeyboardInterrupt | None = None


@contextmanager
def heeding_termination() -> Iterator[Heard]:
    """Inside, SIGTERM raises `Terminated`, once, and both it and Ctrl-C are noted.

    A signal that comes while another package is imported is heeded after its import. Elsewhere than in the main thread,
    and where a signal is handled or ignored already, nothing is changed.
    """
    heard = Heard()
    imported_from = _foreign_imports(inspect.currentframe())
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        if _foreign_imports(frame) > imported_from:
            return _send_later(number)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process as it is
        heard.interrupt = Terminated()
        raise heard.interrupt

    def interrupt(number: int, frame: FrameType | None) -> None:
        if _foreign_imports(frame) > imported_from:
            return _send_later(number)
        heard.interrupt = KeyboardInterrupt()
        raise heard.interrupt

    handlers = ((signal.SIGTERM, signal.SIG_DFL, terminate), (signal.SIGINT, signal.default_int_handler, interrupt))
    ours = [(number, before, handler) for number, before, handler in handlers if signal.getsignal(number) == before]
    try:
        for number, _, handler in ours:
            signal.signal(number, handler)
        yield heard
    finally:
        for number, before, _ in ours:
            signal.signal(number, before)


def _foreign_imports(frame: FrameType | None) -> int:
    """The imports of other packages' modules that are under way.

    Their code in C calls Python code as it is loaded, and some abort the process when that raises.
    """
    count = 0
    while frame is not None:
        if frame.f_code.co_name == "_load_unlocked":  # of importlib, which runs the module named by `spec`
            spec = frame.f_locals.get("spec")
            count += isinstance(spec, ModuleSpec) and spec.name.partition(".")[0] != OURS
        frame = frame.f_back
    return count


def _send_later(number: int) -> None:
    timer = threading.Timer(LATER_SECONDS, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()
