"""Filter for the informational lines that native libraries print to standard error."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STANDARD_ERROR = 2
INFORMATION = b"INFO: "
_lock = threading.Lock()


@contextmanager
def held_back(tells: Callable[[bytes], bool]) -> Iterator[None]:
    """Hold back what is written to standard error inside, and write those lines afterwards that `tells` accepts.

    For libraries that offer no setting against it: LiteRT announces its delegate, FFmpeg each encoder that it tries in
    vain. Other threads' lines are delayed, and judged as well.
    """
    with _lock:
        try:
            kept = os.dup(STANDARD_ERROR)
        except OSError:  # a service without standard error
            yield
            return
        with tempfile.TemporaryFile() as held:
            os.dup2(held.fileno(), STANDARD_ERROR)
            try:
                yield
            finally:
                os.dup2(kept, STANDARD_ERROR)
                os.close(kept)
                held.seek(0)
                for line in filter(tells, held):
                    os.write(STANDARD_ERROR, line)


def no_information(line: bytes) -> bool:
    """Whether a line is more than information."""
    return not line.startswith(INFORMATION)
