"""The verb `completion`: a script that completes commands in a shell."""

from __future__ import annotations

import argparse
from functools import partial

from .arguments import Verbs, add_verb
from .exit_codes import GOOD


def completion(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """`completion`: the script for `parser`, on standard output."""
    import shtab

    print(shtab.complete(parser, options.shell))
    return GOOD


def add_completion(verbs: Verbs, parser: argparse.ArgumentParser) -> None:
    """Add the verb, which completes the verbs of `parser`."""
    run = partial(completion, parser)
    summary, example = "print a script that completes commands", "completion bash > retinaface-edge.bash"
    verb = add_verb(verbs, "completion", run, summary, example, extra="completion")
    verb.add_argument("shell", choices=("bash", "zsh", "tcsh"))
