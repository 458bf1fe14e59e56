"""pytest in a fork of a process that has imported the frameworks: a run costs what its tests cost.

A fork starts with its own copy of the folder of caches, so that what a mutant writes there poisons no other run.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.util
import json
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
FRAMEWORKS = (
    "torch", "onnx", "onnxruntime", "openvino", "ai_edge_litert.interpreter", "skimage.data", "hypothesis", "PIL.Image",
    "retinaface.weights", "coverage", "pytest",
)  # fmt: skip
FIXTURES = ("checkpoint", "fp32", "calibration", "int8")
"""Of the session, made once by the code as it is: they take seconds, and no test is about how they come to be."""
BUNDLES = ("bundle", "mesh_bundle", "photo_bundle")
"""Of the session, built again in every run from stages of one build by the code as it is."""


FIXTURE = "fixture "
"""Before the name of a fixture where it stands beside names of tests."""


def import_frameworks() -> None:
    """What every fork would import again, and nothing of the package."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in FRAMEWORKS:
        importlib.import_module(name)


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module of the package by other code."""

    def __init__(self, path: Path, code: CodeType) -> None:
        parts = path.relative_to(ROOT).with_suffix("").parts
        self.package = parts[-1] == "__init__"
        self.name = ".".join(("retinaface_edge", *(parts[:-1] if self.package else parts)))
        self.file = ROOT / "retinaface_edge" / path.relative_to(ROOT)
        self.code = code

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(
            name, self.file, loader=self, submodule_search_locations=[str(self.file.parent)] if self.package else None
        )

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)


@dataclass(eq=False)
class Chosen:
    """A plugin of pytest: runs the tests of `names` in that order (all in theirs, if none), with kept fixtures.

    `first_of` chooses by fixtures instead: the first test that uses each. Notes each test's seconds and, in order, the
    tests that fail and the files that cannot be collected.
    """

    kept: Path
    names: Sequence[str] = ()
    first_of: Collection[str] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def pytest_sessionstart(self) -> None:
        """The same examples as ever; a property that fails is not worth a search for its simplest case."""
        from hypothesis import Phase, settings

        phases = (Phase.explicit, Phase.generate, Phase.target)
        settings.register_profile("failing", settings.get_profile("tests"), phases=phases)
        settings.load_profile("failing")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        by_name = {item.nodeid: item for item in items}
        if self.names:
            items[:] = [by_name[name] for name in self.names if name in by_name]
        elif self.first_of:
            users = [next((i for i in items if name in i.fixturenames), None) for name in self.first_of]
            items[:] = dict.fromkeys(item for item in users if item)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Any:
        """The value of a kept fixture, read from its file; None has pytest make it."""
        file = self.kept / f"{fixturedef.argname}.pickle"
        if fixturedef.scope != "session" or not file.is_file():
            return None
        value = pickle.loads(file.read_bytes())
        fixturedef.cached_result = (value, fixturedef.cache_key(request), None)
        return value

    def pytest_fixture_post_finalizer(self, fixturedef: Any) -> None:
        """Keep it at the session's end, where it was made in this run."""
        file = self.kept / f"{fixturedef.argname}.pickle"
        made = fixturedef.cached_result
        if self.first_of and fixturedef.argname in FIXTURES and made and made[2] is None and not file.exists():
            file.write_bytes(pickle.dumps(made[0]))


@dataclass(eq=False)
class Contexts:
    """A plugin of pytest: tells `switch` what runs, a test by its name, a shared fixture by `FIXTURE` and its name.

    A fixture that several tests share is made for the first of them, and all of them look at it: `uses` has the names
    of each test's fixtures, `made` the seconds of each shared one, `paid` the seconds that a test spent on making them.
    """

    switch: Callable[[str], None]
    uses: dict[str, list[str]] = field(default_factory=dict)
    made: dict[str, float] = field(default_factory=dict)
    paid: dict[str, float] = field(default_factory=dict)
    current: str = ""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        self.uses.update((item.nodeid, list(item.fixturenames)) for item in items)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._enter(nodeid)

    def pytest_runtest_logfinish(self) -> None:
        self._enter("")

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[Any]:
        if fixturedef.scope == "function":
            return (yield)
        around, begin = self.current, time.perf_counter()
        self._enter(FIXTURE + fixturedef.argname)
        try:
            return (yield)
        finally:
            self.made[fixturedef.argname] = took = time.perf_counter() - begin
            self.paid[around] = self.paid.get(around, 0.0) + took
            self._enter(around)

    def _enter(self, context: str) -> None:
        self.current = context
        self.switch(context)


@dataclass(frozen=True)
class Run:
    """A fork under way: which, where it works, when it is given up."""

    process: int
    folder: Path
    until: float


def start(base: Path, work: Callable[[Path], Any], seconds: float, shared: bool = False) -> Run:
    """Fork, and call `work` with the fork's folder, where its result is written as JSON.

    The folder holds `caches`, a copy of those of `base`; the copy's files are links, and a changed file is a new one.
    With `shared`, what runs is the code as it is, and it uses and fills those of `base`.
    """
    folder = Path(tempfile.mkdtemp(dir=base, prefix="run-"))
    if not shared:
        shutil.copytree(base / "caches", folder / "caches", copy_function=os.link)
    sys.stdout.flush()
    process = os.fork()
    if process:
        return Run(process, folder, time.monotonic() + seconds)
    try:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.environ["RETINAFACE_EDGE_TEST_CACHE"] = str((base if shared else folder) / "caches")
        os.chdir(ROOT)
        sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
        (folder / "result.json").write_text(json.dumps(work(folder)))
    finally:
        os._exit(0)


def ended(run: Run) -> bool:
    """Whether it has ended; a run that is out of time is killed, with what it started."""
    done, _ = os.waitpid(run.process, os.WNOHANG)
    if not done and time.monotonic() < run.until:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.process, signal.SIGKILL)
    if not done:
        os.waitpid(run.process, 0)
    return True


def result(run: Run) -> Any:
    """What the work of a run that has ended returned; None if it crashed or was out of time. Clears its folder."""
    file = run.folder / "result.json"
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    finally:
        shutil.rmtree(run.folder, ignore_errors=True)


def each(tasks: Sequence[Callable[[], Run]], jobs: int) -> Iterator[tuple[int, Any]]:
    """Start all tasks, `jobs` at a time; gives the number and the result of each as it ends."""
    waiting, under_way = list(enumerate(tasks)), dict[int, Run]()
    try:
        while waiting or under_way:
            while waiting and len(under_way) < jobs:
                number, task = waiting.pop(0)
                under_way[number] = task()
            for number, run in list(under_way.items()):
                if ended(run):
                    del under_way[number]
                    yield number, result(run)
            time.sleep(0.01)
    finally:
        for run in under_way.values():
            ended(Run(run.process, run.folder, 0.0))


def tests(folder: Path, plugins: Sequence[object], files: Collection[str], *options: str) -> int:
    """pytest on some files, in a fork; gives its exit code."""
    fixed = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly", f"--basetemp={folder / 'tmp'}"]
    return int(pytest.main([*fixed, *options, *files], plugins=plugins))
