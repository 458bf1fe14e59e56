"""Run a function in a separate process, pinned to cores before any library is loaded.

Threads inherit the cores of what starts them, and libraries count the cores that they find: so no thread pool is larger
than the measured cores, and none reaches beyond them. `linux.threads_beyond` checks that it stayed so.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import TypeVar

from ..errors import MeasurementError
from ..inference.workers import THREAD_VARIABLES, deaf_to_signals, die_with
from ..linux import usable_cores

Result = TypeVar("Result")


def choose_cores(count: int) -> tuple[int, ...]:
    """The last `count` of the cores that this process may use; the first ones serve most interrupts.

    Raises `MeasurementError` when there are fewer, or when the system cannot hold a process to some of them.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise MeasurementError("this system cannot pin a process to cores; measure on Linux")
    usable = usable_cores()
    if count > len(usable):
        raise MeasurementError(
            f"{count} cores were asked for, this process may use {len(usable)}; give a smaller --cores"
        )
    return tuple(usable[-count:])


def run_pinned(function: Callable[..., Result], *arguments: object, cores: Sequence[int]) -> Result:
    """`function(*arguments)` in a new process on `cores`; function, arguments and result must be picklable.

    Raises what the function raises, and `MeasurementError` when the process dies.
    """
    context = multiprocessing.get_context("spawn")  # forked, it would have this process's threads' locks, not threads
    here, there = context.Pipe()
    child = context.Process(target=_work, args=(os.getpid(), there), daemon=True)
    with _held(cores), deaf_to_signals():  # this process hears them, and ends that one
        child.start()
    there.close()
    try:
        here.send((function, arguments))  # as arguments of the process, large ones would wait for ever for a dead one
        good, result = here.recv()
    except (EOFError, ConnectionError):
        child.join()
        raise MeasurementError(
            f"the measuring process died (exit code {child.exitcode}); it may have run out of memory"
        ) from None
    finally:
        child.kill()  # it keeps nothing, and is deaf to SIGTERM
        child.join()
        here.close()
    if not good:
        raise result
    return result  # type: ignore[no-any-return]


@contextmanager
def _held(cores: Sequence[int]) -> Iterator[None]:
    """What this thread starts inside has these cores, and as many threads in NumPy's and other OpenMP pools."""
    affinity = os.sched_getaffinity(0)
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(len(cores))))
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, affinity)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(parent: int, pipe: Connection) -> None:
    die_with(parent)
    try:
        function, arguments = pipe.recv()
        outcome = (True, function(*arguments))
    except Exception as error:
        outcome = (False, error)
    try:
        pipe.send(outcome)
    except Exception as error:  # what was raised or returned cannot be sent
        pipe.send((False, MeasurementError(f"the measuring process failed: {outcome[1]!r} ({error})")))
