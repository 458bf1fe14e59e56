"""Escaping of untrusted text (names, manifests, URLs) before it is printed.

A name that is not UTF-8 comes in as Python reads file names (`surrogateescape`): each odd byte is a surrogate, which no
file and no terminal takes. It goes out escaped.
"""

from __future__ import annotations

import re
from typing import Any

CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""Control characters, changes of the direction of writing, and surrogates; all but tab and line feed."""
CONTROL, CONTROL_OR_BREAK = f"[{CONTROLS}]", f"[{CONTROLS}\t\n]"
CREDENTIALS = r"(?<=://)\S*@"


def escaped(text: str) -> str:
    """Text of any number of lines with control characters as `\\x1b`, and odd bytes of names as `\\xff`."""
    return re.sub(CONTROL, _escape, text)


def printable(text: object) -> str:
    """A name or another value as one line, escaped as `escaped` does."""
    return re.sub(CONTROL_OR_BREAK, _escape, str(text))


def without_credentials(text: str) -> str:
    """Text with the user and password of every URL in it hidden."""
    return re.sub(CREDENTIALS, "***@", text)


def address(url: str) -> str:
    """A URL to be printed: no user, no password, and none of the query, which may hold them too."""
    before, mark, _ = printable(without_credentials(url)).partition("?")
    return f"{before}?…" if mark else before


def json_line(value: Any, ascii_only: bool = False) -> str:
    """JSON on one line. What a terminal might act on is escaped; reading it gives the value back, odd names too."""
    import json  # late, as in `io/untrusted.py`

    text = json.dumps(value, ensure_ascii=ascii_only, allow_nan=False)
    return re.sub(CONTROL, lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
