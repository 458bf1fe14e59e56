"""The public API as text, one name per line: what docs/stability.md promises.

    python tests/public_api.py > tests/public_api.txt

Run this after a change of the public API, and read the difference: a line that goes, or a parameter that is new and
required, breaks users.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator

import retinaface_edge
from retinaface_edge.cli.exit_codes import BAD_INPUT, FAILED, GOOD, INTERRUPTED
from retinaface_edge.cli.main import command_line


def public_api() -> str:
    """Names in Python with their parameters, then verbs with their options, then exit codes."""
    codes = {"good": GOOD, "gate failed": FAILED, "bad input": BAD_INPUT, "interrupted": INTERRUPTED}
    lines = [*_python(), *_verbs(), *(f"exit code {code}: {meaning}" for meaning, code in codes.items())]
    return "\n".join(lines) + "\n"


def _python() -> Iterator[str]:
    for name in sorted(retinaface_edge.__all__):
        thing = getattr(retinaface_edge, name)
        shown = f"retinaface_edge.{name}"
        yield f"{shown}{_parameters(thing)}"
        if inspect.isclass(thing) and not issubclass(thing, Exception):
            fields = getattr(thing, "__dataclass_fields__", {}) or dict.fromkeys(getattr(thing, "_fields", ()))
            for member in sorted({*fields, *_members(thing)}):
                value = inspect.getattr_static(thing, member, None)
                value = getattr(value, "__func__", value)  # of class and static methods
                yield f"{shown}.{member}{_parameters(value) if inspect.isfunction(value) else ''}"


def _members(cls: type) -> set[str]:
    """Public members that are defined in our code."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("retinaface_edge")]
    return {name for base in ours for name in vars(base) if not name.startswith("_")}


def _parameters(thing: object) -> str:
    """For instance `(self, frame, score_threshold=, *, rgb=)`: an equals sign where there is a default."""
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return f"({', '.join(base.__name__ for base in thing.__bases__)})"
    assert callable(thing)
    parts, keywords = [], False
    for parameter in inspect.signature(thing).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            keywords = True
            parts.append("*")
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        parts.append(f"{star}{parameter.name}{'' if parameter.default is parameter.empty else '='}")
    return f"({', '.join(parts)})"


def _verbs() -> Iterator[str]:
    (verbs,) = (action for action in command_line()._actions if isinstance(action, argparse._SubParsersAction))
    for name, verb in sorted(verbs.choices.items()):
        for action in verb._actions:
            words = action.option_strings or [str(action.metavar or action.dest).upper()]
            if action.dest != "help":
                yield f"retinaface-edge {name} {' '.join(words)}{' (required)' if action.required else ''}"
        if len(verb._actions) == 1:
            yield f"retinaface-edge {name}"


if __name__ == "__main__":
    print(public_api(), end="")
