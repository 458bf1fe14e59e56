"""The mutation run: which mutants there are, and which tests each one meets."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests" / "robustness" / "trust"))

import forked
import mutation
from mutants import mutants

SOURCE = '''
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from a import B

LIMIT = 3


def grow(x: "int | None") -> int:
    """Text with 1 < 2."""
    if x is None or x < LIMIT:
        raise ValueError(f"{x + 1} is too small")
    return x + 1
'''


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "grow.py"
    path.write_text(SOURCE)
    return path


def test_every_small_change_is_a_mutant_and_nothing_else_is(module: Path) -> None:
    assert [f"{m.line}: {m.before} -> {m.after}" for m in mutants(module)] == [
        "7: 3 -> 4",
        "12: if x is None or x < LIMIT: -> if not (x is None or x < LIMIT):",
        "12: x is None or x < LIMIT -> x is None and x < LIMIT",
        "12: x is None -> x is not None",
        "12: x < LIMIT -> x <= LIMIT",
        "13: raise ValueError(f'{x + 1} is too small') -> pass",
        "14: return x + 1 -> return None",
        "14: x + 1 -> x - 1",
        "14: 1 -> 2",
    ]


def test_a_mutant_is_the_module_with_that_change(module: Path) -> None:
    (change,) = (m for m in mutants(module) if m.after == "x - 1")
    names: dict[str, object] = {}
    exec(change.code(), names)
    assert names["grow"](5) == 4  # type: ignore[operator]


def test_all_of_the_runtime_is_mutated() -> None:
    assert {path for path in mutation.FILES if "runtime" in path.parts} == set((ROOT / "runtime").rglob("*.py"))
    assert all(path.is_file() for path in mutation.FILES)
    silent = {path.name for path in mutation.FILES if not mutants(path)}
    assert silent <= {"__init__.py", "errors.py", "manifest.py"}, "only what has no behaviour, as a class of fields"


def test_a_mutant_meets_the_tests_that_run_its_line_the_quick_ones_first() -> None:
    path = ROOT / "runtime" / "ops" / "iou.py"
    name = str(path.relative_to(ROOT))
    mutant = mutants(path)[-1]
    known = [
        mutation.Test("quick", 0.1, {name: frozenset(mutant.lines)}),
        mutation.Test("elsewhere", 0.2, {name: frozenset({1})}),
        mutation.Test("slow", 5.0, {name: frozenset(mutant.lines)}),
        mutation.Test("slower", 9.0, {name: frozenset(mutant.lines)}),
    ]
    importing = mutation.Test("", 0.0, {})
    assert [test.name for test in mutation.tests_of(mutant, known, importing, 12.0)] == ["quick", "slow"]
    importing = mutation.Test("", 0.0, {name: frozenset(mutant.lines)})
    met = [test.name for test in mutation.tests_of(mutant, known, importing, 20.0)]
    assert met == ["quick", "elsewhere", "slow", "slower"]


def test_what_a_shared_fixture_runs_counts_for_every_test_that_looks_at_it(tmp_path: Path) -> None:
    """It is made for the first of them; told apart from what that test runs itself, it is known of the others, too."""
    (tmp_path / "caches").mkdir()
    (tmp_path / "test_a.py").write_text(
        "import pytest\n"
        "@pytest.fixture(scope='module')\ndef made(): return 1\n"
        "@pytest.fixture\ndef own(made): return 2\n"
        "def test_first(own): pass\n"
        "def test_second(made): pass\n"
    )

    def work(folder: Path) -> dict[str, object]:
        seen: list[str] = []
        contexts = forked.Contexts(seen.append)
        forked.tests(folder, [contexts], [str(tmp_path / "test_a.py")])
        return {
            "seen": [name.split("::")[-1] for name in seen],
            "uses": [*contexts.uses.values()],
            "made": [*contexts.made],
            "paid": [name.split("::")[-1] for name in contexts.paid],
        }

    ((_, found),) = forked.each([lambda: forked.start(tmp_path, work, 30.0)], 1)
    assert found["seen"] == ["test_first", "fixture made", "test_first", "", "test_second", ""]
    assert [set(uses) & {"made", "own"} for uses in found["uses"]] == [{"made", "own"}, {"made"}]
    assert (found["made"], found["paid"]) == (["made"], ["test_first"])


def test_a_shared_fixture_is_paid_once_for_each_file() -> None:
    path = ROOT / "runtime" / "ops" / "iou.py"
    mutant = mutants(path)[-1]
    lines = {str(path.relative_to(ROOT)): frozenset(mutant.lines)}
    known = [
        mutation.Test("a.py::plain", 1.0, lines),
        mutation.Test("a.py::first", 0.1, lines, {"made": 5.0}),
        mutation.Test("a.py::second", 0.2, lines, {"made": 5.0}),
        mutation.Test("b.py::other", 0.3, lines, {"made": 5.0}),
    ]
    assert mutation.seconds_of(known) == pytest.approx(11.6)
    met = mutation.tests_of(mutant, known, mutation.Test("", 0.0, {}), 7.0)
    assert [test.name for test in met] == ["a.py::plain", "a.py::first", "a.py::second"]


def test_the_kills_of_a_flaky_test_are_not_believed_and_those_of_one_that_passes_alone_are(tmp_path: Path) -> None:
    """Of these tests, one fails at every second run, one only beside others, and one takes the process with it."""
    (tmp_path / "caches").mkdir()
    runs = Counter[str]()

    def run(tests: Sequence[mutation.Test]) -> forked.Run:
        names = [test.name for test in tests]
        runs.update(names)
        fails = {"flaky": runs["flaky"] % 2 == 0, "dependent": len(names) > 1, "crashing": False, "good": False}
        failed = [name for name in names if fails[name]]

        def work(folder: Path) -> dict[str, object]:
            if "crashing" in names:
                os.kill(os.getpid(), signal.SIGKILL)
            return {"code": int(bool(failed)), "failed": failed}

        return forked.start(tmp_path, work, 30.0)

    good, flaky, dependent, crashing = (mutation.Test(n, 0.0, {}) for n in ("good", "flaky", "dependent", "crashing"))
    doubts = mutation.doubted([good, flaky, dependent], run, 2)
    assert (doubts.flaky, doubts.dependent) == ({"flaky"}, {"dependent"})
    assert runs["good"] == mutation.TOGETHER, "what passed in company is not run again"
    doubts = mutation.doubted([good, crashing], run, 2)
    assert (doubts.flaky, doubts.dependent) == ({"crashing"}, {"good"})


@pytest.mark.parametrize(
    ("outcome", "killer"),
    [
        (None, "hung or crashed"),
        ({"code": 0, "failed": []}, ""),
        ({"code": 1, "failed": ["test_a", "test_b"]}, "test_a"),
        ({"code": 2, "failed": ["tests/test_a.py"]}, "tests/test_a.py"),
        ({"code": 5, "failed": []}, ""),
    ],
)
def test_a_mutant_is_killed_by_what_failed_and_by_nothing_that_did_not_run(outcome: object, killer: str) -> None:
    assert mutation.killer_in(outcome) == killer


def test_a_fork_that_hangs_or_crashes_gives_no_result(tmp_path: Path) -> None:
    (tmp_path / "caches").mkdir()
    work = (lambda folder: 7, lambda folder: os.kill(os.getpid(), signal.SIGKILL), lambda folder: time.sleep(60))
    tasks = [lambda each=each: forked.start(tmp_path, each, 1.0) for each in work]  # type: ignore[misc]
    assert dict(forked.each(tasks, 3)) == {0: 7, 1: None, 2: None}
    assert [path.name for path in tmp_path.iterdir()] == ["caches"]
