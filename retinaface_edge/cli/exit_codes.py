"""Exit codes of the command line, and the one line that an error prints."""

from __future__ import annotations

import sys

GOOD, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Success; a gate failed; bad input or usage; stopped by Ctrl-C."""


def fail(message: str) -> int:
    """Print an error as one line on standard error; gives the exit code of bad input."""
    print(f"retinaface-edge: error: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT
