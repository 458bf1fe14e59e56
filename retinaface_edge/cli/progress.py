"""Progress on standard error: a bar on a terminal, one line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any

from .process.streams import unescaped

WIDTH = 30
SECONDS_BETWEEN_LINES = 10.0


_quiet = False


def be_quiet(quiet: bool) -> None:
    """Whether `say` and `bar` print nothing, in this process."""
    global _quiet
    _quiet = quiet


def say(text: str) -> None:
    """Print one line on standard error."""
    if _quiet:
        return
    print(text, file=sys.stderr, flush=True)


def bar(items: Iterable[Any], total: int = 0) -> Iterator[Any]:
    """Iterate over `items`, showing how many are done and how many seconds are left.

    `total` is their number where they have no length.
    """
    total = len(items) if isinstance(items, Sized) else total
    terminal = sys.stderr.isatty()
    started = shown = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if not total or _quiet or (now - shown < (0.1 if terminal else SECONDS_BETWEEN_LINES) and done != total):
            continue
        shown = now
        left = (now - started) / done * (total - done)
        text = f"  {done}/{total}, {left:.0f} s left"
        if terminal:
            filled = WIDTH * done // total
            unescaped(sys.stderr).write(
                f"\r  [{'#' * filled}{'.' * (WIDTH - filled)}]{text}\x1b[K{chr(10) if done == total else ''}"
            )
            sys.stderr.flush()
        else:
            say(text)
