"""How a verb is added to the command line, and the types of its arguments."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from retinaface_edge.export.checkpoints.interpretation import Overrides
    from retinaface_edge.runtime.bundle.bundle import Bundle
    from retinaface_edge.runtime.detector import Detector
    from retinaface_edge.runtime.io.frame_source import CameraOptions

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What `add_subparsers` gives; its class is generic for type checkers only."""

Run = Callable[[argparse.Namespace], int]
"""What a verb does with its parsed options; gives the exit code."""


class ShortHelp(argparse.HelpFormatter):
    """Help that fits a screen: the usage names what must be given and leaves the options to their list."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],
        prefix: str | None = None,
    ) -> None:
        """Add the usage, with one word for everything that may be left out."""
        shown = [action for action in actions if action.required or not action.option_strings]
        if usage is None and len(shown) < len(list(actions)):
            rest = argparse.Action(["[options]"], "options", metavar="[options]", required=True, nargs=0)
            super().add_usage(usage, [rest, *shown], (), prefix)
            return
        super().add_usage(usage, actions, groups, prefix)


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
        formatter_class=ShortHelp,
    )
    verb.set_defaults(run=run, verb=name, extra=extra)
    told = verb.add_mutually_exclusive_group()
    told.add_argument("--quiet", action="store_true", help="print results and errors only, no progress")
    told.add_argument("-v", "--verbose", action="store_true", help="print the traceback of an error, too")
    return verb


OUTPUT_FILES = ("json", "markdown", "junit", "log", "sbom", "model_card")
VERBS_WITH_AN_OUTPUT_FILE = {"report": "output", "train-mesh": "output", "build": "report", "detect": "csv"}


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
    tables = getattr(options, "csv", None) if options.verb != "detect" else None
    if tables and tables.exists() and not tables.is_dir():
        return f"{tables} is not a folder; give one for the tables"
    return None


def add_input_size(verb: argparse.ArgumentParser) -> None:
    """Add the choice among a bundle's input sizes."""
    verb.add_argument("--size", type=size, metavar="WxH", help="the bundle's input size (default: as each frame asks)")


def load_detector(options: argparse.Namespace, bundle: Bundle) -> Detector:
    """The detector for the input size that was asked for, or for whichever fits a frame."""
    from retinaface_edge.runtime.detector import Detector
    from retinaface_edge.runtime.fitting import FittingDetector

    chosen = (options.backend, options.precision, options.threads)
    if options.size is None and len(bundle.sizes) > 1:
        return FittingDetector.load(bundle, *chosen)
    return Detector.load(bundle.at(*options.size) if options.size else bundle, *chosen)


def add_camera(verb: argparse.ArgumentParser) -> None:
    """Add what a camera is asked for."""
    group = verb.add_argument_group("camera", "what a camera is asked for; it gives what it can")
    group.add_argument("--source-size", type=size, metavar="WxH", help="size of its frames, for instance 1280x720")
    group.add_argument("--source-rate", type=positive, metavar="N", help="frames per second")
    group.add_argument("--source-buffer", type=positive, metavar="N", help="frames that it may hold ready; 1 is live")


def camera_options(options: argparse.Namespace) -> CameraOptions:
    """What the options ask of a camera."""
    from retinaface_edge.runtime.io.frame_source import CameraOptions

    return CameraOptions(options.source_size, options.source_rate, options.source_buffer)


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


LEAKY = {"leaky-relu": True, "relu": False}
"""Activations by name, and whether they are leaky."""


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


def overrides(options: argparse.Namespace) -> Overrides:
    """What the user says about a checkpoint that its file does not tell."""
    from retinaface_edge.export.checkpoints.interpretation import Overrides
    from retinaface_edge.runtime.spec import Colour

    colour = Colour(options.colour) if options.colour else None
    leaky = LEAKY.get(options.activation)
    return Overrides(options.anchors, options.mean, options.std, colour, options.variances, leaky)
