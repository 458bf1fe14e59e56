"""One function over many tasks: in this process, in several, or on a Dask cluster.

Tasks are drawn from an iterator as workers become free, so that they never pile up. Results come in the order of the
tasks, so that sums over them are the same to the last bit, however many workers there are. The function and what all
tasks share must be picklable.
"""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

from retinaface_edge.runtime.text import without_credentials

from ..errors import MeasurementError

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")
Outcome = TypeVar("Outcome", covariant=True)


class Pending(Protocol[Outcome]):
    """A result on its way: a future of `concurrent.futures` or of Dask."""

    def result(self) -> Outcome:
        """Wait for it."""
        ...


@dataclass(frozen=True)
class _Known(Generic[Outcome]):
    outcome: Outcome

    def result(self) -> Outcome:
        return self.outcome


TASKS_PER_WORKER = 4
"""Tasks on their way for each worker: enough that none waits while a slow picture holds up those after it."""
PR_SET_PDEATHSIG = 1
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run(
    function: Callable[[Shared, Task], Result],
    shared: Shared,
    tasks: Iterable[Task],
    known: Callable[[Task], Result | None],
    workers: int = 1,
    dask: str | None = None,
) -> Iterator[Result]:
    """`function(shared, task)` for every task, in their order, or `known(task)` where that is not None.

    `known` runs in this process. `workers` is the number of processes; `dask` the address of a running scheduler, used
    instead. Raises `MeasurementError` when a process dies or the cluster cannot be reached, and whatever `function`
    raises.
    """
    if dask is not None:
        return _on_cluster(function, shared, tasks, known, dask)
    if workers > 1:
        return _in_processes(function, shared, tasks, known, workers)
    return _here(function, shared, tasks, known)


def _here(
    function: Callable[[Shared, Task], Result],
    shared: Shared,
    tasks: Iterable[Task],
    known: Callable[[Task], Result | None],
) -> Iterator[Result]:
    for task in tasks:
        result = known(task)
        yield function(shared, task) if result is None else result


def _in_order(
    submit: Callable[[Task], Pending[Result]],
    tasks: Iterable[Task],
    known: Callable[[Task], Result | None],
    most: int,
) -> Iterator[Result]:
    """Results in the order of the tasks, of which at most `most` are on their way."""
    waiting: deque[Pending[Result]] = deque()
    for task in tasks:
        result = known(task)
        waiting.append(submit(task) if result is None else _Known(result))
        while len(waiting) >= most or (waiting and isinstance(waiting[0], _Known)):
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _in_processes(
    function: Callable[[Shared, Task], Result],
    shared: Shared,
    tasks: Iterable[Task],
    known: Callable[[Task], Result | None],
    workers: int,
) -> Iterator[Result]:
    # Spawned, not forked: the backends start threads, which do not survive a fork.
    context = multiprocessing.get_context("spawn")
    # Sent with each task: as arguments of the process, large ones would wait for ever for one that died as it started.
    job = pickle.dumps((function, shared))
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))  # children read it once, as they import NumPy
    try:
        others = set(multiprocessing.active_children())
        with futures.ProcessPoolExecutor(workers, context, die_with, (os.getpid(),)) as pool:

            def submit(task: Task) -> Pending[Result]:
                with deaf_to_signals():  # submitting starts the workers
                    return pool.submit(_work, job, task)

            try:
                yield from _in_order(submit, tasks, known, workers * TASKS_PER_WORKER)
            except BaseException:
                # Nobody waits for what is under way, and a worker keeps nothing: only this process does.
                for worker in set(multiprocessing.active_children()) - others:
                    worker.kill()
                pool.shutdown(cancel_futures=True)
                raise
    except futures.process.BrokenProcessPool as error:
        raise MeasurementError(
            "a worker process died, perhaps because memory ran out; run again with fewer --workers: "
            "finished measurements are kept"
        ) from error
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def deaf_to_signals() -> Iterator[None]:
    """A process started inside never hears Ctrl-C or SIGTERM, not even while it imports; this one does at the end.

    Both are sent to a whole group of processes, of which this one ends the others.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the process `parent`, which started it, ends in whatever way. On Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel knew
        os._exit(1)


@lru_cache(maxsize=1)
def _job(job: bytes) -> tuple[Callable[[Any, Any], Any], Any]:
    function, shared = pickle.loads(job)
    return function, shared


def _work(job: bytes, task: Any) -> Any:
    function, shared = _job(job)
    return function(shared, task)


def _on_cluster(
    function: Callable[[Shared, Task], Result],
    shared: Shared,
    tasks: Iterable[Task],
    known: Callable[[Task], Result | None],
    address: str,
) -> Iterator[Result]:
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise MeasurementError("--dask needs Dask; run: pip install 'retinaface-edge[cluster]'") from error
    try:
        client = distributed.Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise MeasurementError(
            f"no Dask scheduler answers at {without_credentials(address)} ({error}); start one, or leave out --dask"
        ) from error
    with client:
        places = sum(client.nthreads().values()) or 1
        # A result lost with its worker is measured again elsewhere, and what is shared is sent again from here.
        given = client.scatter(shared, broadcast=True, hash=False)

        def submit(task: Task) -> Pending[Result]:
            pending: Pending[Result] = client.submit(_remote, function, given, task, pure=False, retries=2)
            return pending

        yield from _in_order(submit, tasks, known, places * TASKS_PER_WORKER)


def _remote(function: Callable[[Any, Any], Any], shared: Any, task: Any) -> Any:
    return function(shared, task)
