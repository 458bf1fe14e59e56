"""How a verb is added to the command line, and the types of its arguments."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What `add_subparsers` gives; its class is generic for type checkers only."""

Run = Callable[[argparse.Namespace], int]
"""What a verb does with its parsed options; gives the exit code."""


def add_verb(
    verbs: Verbs, name: str, run: Run, summary: str, example: str, extra: str | None = None
) -> argparse.ArgumentParser:
    """Add one verb; gives its parser, which has no arguments yet.

    Args:
        verbs: the list it is added to.
        name: the word on the command line.
        run: what is called with the parsed options.
        summary: what the verb does, in a few words that start with a small letter.
        example: a whole command without the program's name.
        extra: the extra in pyproject.toml that installs what the verb imports; an error names it.
    """
    verb = verbs.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example: retinaface-edge {example}",
    )
    verb.set_defaults(run=run, verb=name, extra=extra)
    told = verb.add_mutually_exclusive_group()
    told.add_argument("--quiet", action="store_true", help="print results and errors only, no progress")
    told.add_argument("-v", "--verbose", action="store_true", help="print the traceback of an error, too")
    return verb


OUTPUT_FILES = ("json", "markdown", "junit", "log", "sbom", "model_card")
VERBS_WITH_AN_OUTPUT_FILE = {"report": "output", "train-mesh": "output", "build": "report"}


def unwritable_output(options: argparse.Namespace) -> str | None:
    """Why a file that the options name can not be written, told before minutes are spent on what it will hold."""
    names = [*OUTPUT_FILES, VERBS_WITH_AN_OUTPUT_FILE.get(options.verb, "")]
    for target in (getattr(options, name, None) for name in names if name):
        if not isinstance(target, Path):
            continue
        parent = target.absolute().parent
        if not parent.is_dir():
            return f"{target} cannot be written: there is no folder {target.parent}; make it first"
        if target.is_dir():
            return f"{target} cannot be written: it is a directory; give a file"
        if not os.access(target if target.exists() else parent, os.W_OK):
            return f"{target} cannot be written: permission denied; give another file"
    return None


def size(text: str) -> tuple[int, int]:
    """The size of a network input or frame: `640x480` is (640, 480)."""
    width, separator, height = text.lower().partition("x")
    if not separator or not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, for instance 640x480")
    return int(width), int(height)


def positive(text: str) -> int:
    """A whole number from 1 up."""
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def port(text: str) -> int:
    """A TCP port, 0 to 65535."""
    if not (text.isascii() and text.isdigit()) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


def milliseconds(text: str) -> float:
    """A number above 0."""
    (value,) = _numbers(text, 1)
    if value <= 0.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of milliseconds above 0")
    return value


def percent(text: str) -> float:
    """A number from 0 to 100, with or without the sign: `5`, `2.5%`."""
    return _number_up_to(100.0, text.removesuffix("%"))


def share(text: str) -> float:
    """A number from 0 to 1."""
    return _number_up_to(1.0, text)


def anchors(text: str) -> tuple[tuple[int, ...], ...]:
    """Anchor sizes by level, the finest first: `16,32/64,128/256,512`."""
    try:
        levels = tuple(tuple(positive(size) for size in level.split(",")) for level in text.split("/"))
    except argparse.ArgumentTypeError:
        levels = ()
    if not levels:
        raise argparse.ArgumentTypeError(f"{text!r} is not sizes by level, for instance 16,32/64,128/256,512")
    return levels


def three_numbers(text: str) -> tuple[float, float, float]:
    """One number per colour: `104,117,123`."""
    first, second, third = _numbers(text, 3)
    return first, second, third


def two_numbers(text: str) -> tuple[float, float]:
    """Two numbers: `0.1,0.2`."""
    first, second = _numbers(text, 2)
    return first, second


def _numbers(text: str, count: int) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"{text!r} is not {_count(count)}")
    return numbers


def _count(count: int) -> str:
    return "a number" if count == 1 else f"{count} numbers with commas between them"


def _number_up_to(most: float, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {most:g}")
    return value
