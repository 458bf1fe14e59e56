"""Output streams of a command: untrusted text cannot control the terminal, and every character can be printed."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from retinaface_edge.runtime.text import escaped, json_line, without_credentials


class GuardedStream:
    """A text stream that escapes control characters and hides credentials in URLs; otherwise as the one it guards."""

    def __init__(self, stream: TextIO) -> None:
        self.unescaped = stream

    def write(self, text: str) -> int:
        """Write the text, escaped; gives its length."""
        self.unescaped.write(without_credentials(escaped(text)))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unescaped, name)


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Inside, `sys.stdout` and `sys.stderr` are guarded, and take every character whatever their encoding is."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (GuardedStream(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def unescaped(stream: TextIO) -> TextIO:
    """The stream itself, for what we write to move the cursor."""
    return stream.unescaped if isinstance(stream, GuardedStream) else stream


def print_json(value: Any) -> None:
    """One JSON line on standard output, as it comes: valid JSON in whatever encoding the output has."""
    stream = unescaped(sys.stdout)
    utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
    stream.write(json_line(value, ascii_only=not utf8) + "\n")
    stream.flush()
