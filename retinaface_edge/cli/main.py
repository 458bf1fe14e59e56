"""The entry point of the command line: all verbs in one parser, and errors as one line.

Each verb imports what it needs, so that `detect` works where only NumPy and one backend are installed.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from retinaface_edge import __version__
from retinaface_edge.runtime.errors import RetinaFaceEdgeError

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
from .process.termination import Terminated, heeding_termination
from .progress import be_quiet
from .serve import add_serve
from .system import add_system
from .train import add_train


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives its exit code."""
    with guarded_streams(), heeding_termination():
        return _run(command_line().parse_args(arguments))


def _run(options: argparse.Namespace) -> int:
    """Run what was asked for; every exception becomes one line and its exit code."""
    be_quiet(options.quiet)
    try:
        if (problem := unwritable_output(options)) is not None:
            return fail(problem)
        code = int(options.run(options))
        sys.stdout.flush()  # a full disk is told here, and not as Python ends
        return code
    except RetinaFaceEdgeError as error:
        if options.verbose:
            traceback.print_exc()
        return fail(str(error))
    except ImportError as error:
        if not options.extra or not error.name or error.name.startswith("retinaface_edge"):
            return fail_internally(error)
        return fail(f"{options.verb} needs {error.name}; run: pip install 'retinaface-edge[{options.extra}]'")
    except BrokenPipeError:  # the reader of our output has closed it, for instance `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GOOD
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return fail(f"{where}{error.strerror or error}")
    except KeyboardInterrupt as interrupt:
        traceback.clear_frames(interrupt.__traceback__)  # ends generators and with them worker processes
        code, word = (TERMINATED, "terminated") if isinstance(interrupt, Terminated) else (INTERRUPTED, "interrupted")
        print(f"retinaface-edge: {word}; nothing was left half-written", file=sys.stderr)
        return code
    except MemoryError as error:
        traceback.clear_frames(error.__traceback__)
        return fail("there is not enough memory; give smaller input or fewer --workers")
    except Exception as error:
        return fail_internally(error)


def command_line() -> argparse.ArgumentParser:
    """The parser of all verbs; parsed options have `run`, which does the work."""
    parser = argparse.ArgumentParser(
        prog="retinaface-edge",
        description="Compile a trained RetinaFace into a device bundle, and run it.",
        epilog="example: retinaface-edge build --output bundle && retinaface-edge detect bundle photo.jpg --draw out",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
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
