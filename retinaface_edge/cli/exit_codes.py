"""Exit codes of the command line, and the one line that an error prints.

| code | means |
|---|---|
| 0 | good |
| 1 | a gate failed or had nothing to judge, or `--max-drift` cannot be met |
| 2 | bad input or usage, a bundle that was changed, a full disk; one line says which |
| 3 | the video, camera or stream failed or ended before its time; what came before was found and written |
| 70 | an error inside retinaface-edge; one line says where its traceback is |
| 130, 143 | interrupted (Ctrl-C), terminated (SIGTERM); nothing was left half-written |
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback

GOOD, FAILED, BAD_INPUT, SOURCE_ENDED, INTERNAL, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 70, 130, 143


def fail(message: str) -> int:
    """Print an error as one line on standard error; gives the exit code of bad input."""
    print(f"retinaface-edge: error: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT


def fail_internally(error: BaseException) -> int:
    """Print one line about an error that no input should cause, its traceback kept in a file; gives its exit code."""
    said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    print(f"retinaface-edge: internal error: {said}; please report it with {_kept_traceback(error)}", file=sys.stderr)
    return INTERNAL


def _kept_traceback(error: BaseException) -> str:
    """Where the traceback is: in a file of its own that only this user reads, or above on standard error."""
    text = "".join(traceback.format_exception(error))
    try:
        handle, name = tempfile.mkstemp(prefix="retinaface-edge-", suffix=".traceback")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        print(text, file=sys.stderr)
        return "the traceback above"
    return name
