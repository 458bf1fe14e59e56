"""What native libraries say on standard error, without their informational lines."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STANDARD_ERROR = 2
INFORMATION = b"INFO: "
_lock = threading.Lock()


@contextmanager
def without_information() -> Iterator[None]:
    """Hold back what is written to standard error inside, and write it afterwards but for lines of `INFO`.

    LiteRT announces its delegate this way and offers no setting against it. Other threads' lines are delayed, not lost.
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
                for line in held:
                    if not line.startswith(INFORMATION):
                        os.write(STANDARD_ERROR, line)
