"""The entry point of the command line: all verbs in one parser, and errors as one line.

Each verb imports what it needs, so that `detect` works where only NumPy and one backend are installed.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from retinaface_edge.runtime.errors import RetinaFaceEdgeError
from retinaface_edge.runtime.version import version

from .arguments import unwritable_output
from .build import add_build
from .completion import add_completion
from .detect import add_detect
from .exit_codes import GOOD, INTERRUPTED, TERMINATED, fail, fail_internally
from .measure.bench import add_bench
from .measure.choose import add_choose
from .measure.cost import add_cost
from .measure.judge import add_judge
from .process.streams import guarded_streams
from .process.termination import Heard, Terminated, heeding_termination
from .progress import be_quiet
from .serve import add_serve
from .system import add_system
from .train import add_train


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives its exit code."""
    with guarded_streams(), heeding_termination() as heard:
        try:
            return _run(command_line().parse_args(arguments), heard)
        except KeyboardInterrupt as interrupt:
            return _end(interrupt)


def _run(options: argparse.Namespace, heard: Heard) -> int:
    """Run what was asked for; every exception becomes one line and its exit code."""
    be_quiet(options.quiet)
    try:
        return _run_verb(options)
    except Exception as error:
        if heard.interrupt is None:
            return _told(error, options)
        traceback.clear_frames(error.__traceback__)
        return _end(heard.interrupt)


def _run_verb(options: argparse.Namespace) -> int:
    if (problem := unwritable_output(options)) is not None:
        return fail(problem)
    code = int(options.run(options))
    sys.stdout.flush()  # so that a full disk is reported here, not while Python exits
    return code


def _told(error: Exception, options: argparse.Namespace) -> int:
    """Print an error as one line; gives its exit code."""
    if isinstance(error, RetinaFaceEdgeError):
        if options.verbose:
            traceback.print_exception(error)
        return fail(str(error))
    if isinstance(error, ImportError):
        if not options.extra or not error.name or error.name.startswith("retinaface_edge"):
            return fail_internally(error)
        return fail(f"{options.verb} needs {error.name}; run: pip install 'retinaface-edge[{options.extra}]'")
    if isinstance(error, BrokenPipeError):  # the reader of our output has closed it, for instance `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GOOD
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return fail(f"{where}{error.strerror or error}")
    if isinstance(error, MemoryError):
        traceback.clear_frames(error.__traceback__)
        return fail("there is not enough memory; give smaller input or fewer --workers")
    return fail_internally(error)


def _end(interrupt: KeyboardInterrupt) -> int:
    """What is said of Ctrl-C or SIGTERM, once all is tidied up; gives the exit code."""
    traceback.clear_frames(interrupt.__traceback__)  # ends generators and with them worker processes
    code, word = (TERMINATED, "terminated") if isinstance(interrupt, Terminated) else (INTERRUPTED, "interrupted")
    print(f"retinaface-edge: {word}; nothing was left half-written", file=sys.stderr)
    return code


class _ShowVersion(argparse.Action):
    """Print the version, which is read from disk only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        try:
            print(f"{parser.prog} {version()}")
        except OSError as error:
            parser.exit(fail(f"the version cannot be read ({error.strerror}); install retinaface-edge again"))
        parser.exit()


def command_line() -> argparse.ArgumentParser:
    """The parser of all verbs; parsed options have `run`, which does the work."""
    parser = argparse.ArgumentParser(
        prog="retinaface-edge",
        description="Compile a trained RetinaFace into a device bundle, and run it.",
        epilog="example: retinaface-edge build --output bundle && retinaface-edge detect bundle photo.jpg --draw out",
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    add_build(verbs)
    add_detect(verbs)
    add_serve(verbs)
    add_bench(verbs)
    add_choose(verbs)
    add_cost(verbs)
    add_system(verbs)
    add_completion(verbs, parser)
    add_judge(verbs)
    add_train(verbs)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
