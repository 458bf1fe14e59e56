"""Change the code one small thing at a time, and see whether a test notices.

    python tests/robustness/trust/mutation.py --sample 300 --survivors survivors.txt

Mutants of `runtime/` and the TFLite lowering. First every test file is run once under coverage, which tells the tests
that execute each line; then each mutant meets those that execute its line, the quick ones first, until one fails. The
mutated code is given to the importer of a forked process and never written. A mutant whose tests fail, hang or crash is
killed; one that takes more than a budget of tests to kill survives, and so does one whose line no test executes. At the
end every test that killed is run on the code as it is: the kills of one that fails by itself then do not count.

`--keep DIR` keeps what was found out before the first mutant: of it, only changed test files are run again, and
everything when the code has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from forked import (
    BUNDLES,
    FIXTURE,
    FIXTURES,
    ROOT,
    Changed,
    Chosen,
    Contexts,
    Run,
    each,
    import_frameworks,
    start,
    tests,
)
from mutants import Mutant, mutants

FILES = (
    *sorted((ROOT / "runtime").rglob("*.py")),
    *sorted((ROOT / "export/lower").glob("tflite*.py")),
)
"""What is mutated."""
ROOMS = ("runtime", "calibration", "export", "benchmarks", "training", "retinaface_edge")
BUDGET = 12.0
"""Seconds of tests, as measured without a mutant, that a mutant may take."""
SLACK = 20.0
"""Seconds that a fork gets on top of four times its tests' own."""
PATIENCE = 4.0
"""How many times longer a fork gets that checks a kill: one that was out of time may have been so by other work."""
HUNG = "hung or crashed"
LEAST = 85.0
"""Percent of the mutants that have to be killed."""
TOGETHER, ALONE = 2, 3
"""How often the tests that killed are run on the code as it is: all in one process; by itself one that failed there."""
PASSED, FAILED, NOTHING_RAN = 0, 1, 5
"""Exit codes of pytest. A mutant may change what parametrised tests are called; then nothing runs."""


@dataclass(frozen=True, eq=False)
class Test:
    """A test: how long it takes, the lines that it runs of the files of `FILES`, by their path from the root, and how
    long the fixtures take that it shares with other tests of its file."""

    name: str
    seconds: float
    lines: Mapping[str, frozenset[int]]
    fixtures: Mapping[str, float] = field(default_factory=dict)

    @property
    def alone(self) -> float:
        """Seconds of the test by itself."""
        return self.seconds + sum(self.fixtures.values())

    @property
    def file(self) -> str:
        """The file it is in."""
        return self.name.split("::")[0]


def seconds_of(tests: Sequence[Test]) -> float:
    """How long these tests take together; a fixture is made once for each file."""
    fixtures = {(test.file, name): seconds for test in tests for name, seconds in test.fixtures.items()}
    return sum(test.seconds for test in tests) + sum(fixtures.values())


def measured(base: Path, files: Sequence[Path], jobs: int) -> dict[str, Any]:
    """The tests of each file with the lines that they run; the first entry of each is what importing runs."""
    include = [str(path) for path in FILES]

    def measure(file: Path, folder: Path) -> Any:
        import coverage

        traced = coverage.Coverage(data_file=None, config_file=False, include=include)
        plugin, contexts = Chosen(base / "kept"), Contexts(traced.switch_context)
        traced.start()
        code = tests(folder, [plugin, contexts], [str(file)])
        traced.stop()
        if code not in (0, 5):
            return {"failed": plugin.failed}
        data = traced.get_data()
        found: dict[str, dict[str, set[int]]] = {}
        for path in data.measured_files():
            for line, names in data.contexts_by_lineno(path).items():
                for name in names:
                    found.setdefault(name, {}).setdefault(os.path.relpath(path, ROOT), set()).add(line)
        return {
            name: {
                "seconds": max(plugin.seconds.get(name, 0.0) - contexts.paid.get(name, 0.0), 0.0),
                "fixtures": {
                    used: contexts.made[used] for used in contexts.uses.get(name, ()) if used in contexts.made
                },
                "lines": _with_fixtures(found, name, contexts),
            }
            for name in ("", *plugin.seconds)
        }

    tasks = [partial(start, base, partial(measure, file), 900.0, shared=True) for file in files]
    return {files[number].name: outcome for number, outcome in each(tasks, jobs)}


def _with_fixtures(found: Mapping[str, Mapping[str, set[int]]], name: str, contexts: Contexts) -> dict[str, list[int]]:
    """The lines of each file that a test or one of its shared fixtures runs."""
    parts = [found.get(part, {}) for part in (name, *(FIXTURE + used for used in contexts.uses.get(name, ())))]
    return {path: sorted(set().union(*(part.get(path, ()) for part in parts))) for path in {*chain(*parts)}}


def code_digest() -> str:
    """Of all Python files but the test files themselves."""
    tests = ROOT / "tests"
    files = [
        *(path for room in ROOMS for path in (ROOT / room).rglob("*.py")),
        *tests.glob("oracles/*"),
        tests / "c_cases.py",
        *tests.glob("robustness/fuzz/*"),
        *tests.glob("robustness/trust/*"),
        tests / "conftest.py",
        tests / "untrained.py",
    ]
    code = hashlib.sha256()
    for path in sorted(file for file in files if file.suffix == ".py"):
        code.update(path.read_bytes())
    return code.hexdigest()


def known_tests(base: Path, jobs: int) -> tuple[list[Test], Test]:
    """Every test, and what importing them runs (as a test without a name)."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    kept = base / "map.json"
    table = json.loads(kept.read_text()) if kept.is_file() else {}
    table = {name: entry for name, entry in table.items() if entry["digest"] == digests.get(name)}
    missing = [file for file in files if file.name not in table]
    if missing:
        print(f"which test runs which line: {len(missing)} of {len(files)} test files are run", flush=True)
    for name, outcome in measured(base, missing, jobs).items():
        if outcome is None or "failed" in outcome:
            print(f"{name} fails without a mutant and is left out: {outcome and outcome['failed']}", flush=True)
            continue
        table[name] = {"digest": digests[name], "tests": outcome}
    kept.write_text(json.dumps(table))
    found, importing = [], dict[str, frozenset[int]]()
    for entry in table.values():
        for name, test in entry["tests"].items():
            lines = {path: frozenset(numbers) for path, numbers in test["lines"].items()}
            if name:
                found.append(Test(name, test["seconds"], lines, test["fixtures"]))
            else:
                importing = {p: importing.get(p, frozenset()) | lines.get(p, frozenset()) for p in {*importing, *lines}}
    return sorted(found, key=lambda test: test.alone), Test("", 0.0, importing)


def tests_of(mutant: Mutant, known: Sequence[Test], importing: Test, budget: float) -> list[Test]:
    """Those that run the mutant's line, quickest first.

    If importing runs it, then those that run any line of its module, then the others of their files: a test may look at
    no more than a constant, and one that is itself the first to import the module has nothing more to do with it.
    """
    path, lines = str(mutant.path.relative_to(ROOT)), frozenset(mutant.lines)
    met = [test for test in known if lines & test.lines.get(path, frozenset())]
    if lines & importing.lines.get(path, frozenset()):
        of_module = [test for test in known if test.lines.get(path)]
        files = {test.file for test in of_module}
        met = [*dict.fromkeys([*of_module, *(test for test in known if test.file in files)])]
    chosen: list[Test] = []
    for test in met:
        if chosen and seconds_of([*chosen, test]) > budget:
            break
        chosen.append(test)
    return chosen


def meet(base: Path, mutant: Mutant | None, chosen: Sequence[Test], patience: float = 1.0) -> Run:
    """Start a fork that runs these tests with the mutant, up to the first that fails; without one, all of them."""

    def work(folder: Path) -> Any:
        if mutant:
            sys.meta_path.insert(0, Changed(mutant.path, mutant.code()))
        names = [test.name for test in chosen]
        plugin = Chosen(base / "kept", names)
        code = tests(
            folder, [plugin], dict.fromkeys(name.split("::")[0] for name in names), *(["-x"] if mutant else [])
        )
        return {"code": code, "failed": plugin.failed}

    return start(base, work, patience * (SLACK + 4.0 * seconds_of(chosen)))


@dataclass(frozen=True)
class Doubted:
    """Of the tests that killed, those to be doubted, by their names: `flaky` ones fail on the code as it is when run by
    themselves, `dependent` ones only after other tests."""

    flaky: frozenset[str]
    dependent: frozenset[str]


def doubted(tests: Sequence[Test], run: Callable[[Sequence[Test]], Run], jobs: int) -> Doubted:
    """Run these tests on the code as it is, by `run`, all together and then those that failed by themselves."""
    failed = set[str]()
    for _, outcome in each([partial(run, tests)] * TOGETHER if tests else [], jobs):
        whole = outcome and outcome["code"] in (PASSED, FAILED)
        if not whole:
            print("the tests that killed crash or are out of time together, so each is run by itself", flush=True)
        failed |= set(outcome["failed"]) if whole else {test.name for test in tests}
    again = [test for test in tests if test.name in failed for _ in range(ALONE)]
    tasks = [partial(run, [test]) for test in again]
    flaky = {again[number].name for number, outcome in each(tasks, jobs) if not outcome or outcome["code"] != PASSED}
    return Doubted(frozenset(flaky), frozenset(failed - flaky))


def confirmed(
    base: Path,
    chosen: Sequence[Mutant],
    met: Sequence[Sequence[Test]],
    killers: Mapping[int, str],
    known: Sequence[Test],
    jobs: int,
) -> dict[int, str]:
    """Those of `killers`, what killed each mutant by its number, that may be believed; names the others.

    The mutants of a test that fails after others only meet it again, by itself; and those that hung meet their tests
    `met` again, with more time: the machine may have had other work.
    """
    names = set(killers.values())
    doubts = doubted([test for test in known if test.name in names], partial(meet, base, None, patience=PATIENCE), jobs)
    for name in sorted(doubts.flaky):
        kills = sum(killer == name for killer in killers.values())
        print(f"fails without a mutant, too, so its kills ({kills}) do not count: {name}", flush=True)
    for name in sorted(doubts.dependent):
        print(f"fails without a mutant after other tests, so its mutants meet it by itself: {name}", flush=True)
    by_name = {test.name: [test] for test in known}
    again = [number for number, killer in killers.items() if killer in doubts.dependent or killer == HUNG]
    tasks = [
        partial(meet, base, chosen[number], by_name.get(killers[number], met[number]), PATIENCE) for number in again
    ]
    found = {again[index]: killer_in(outcome) for index, outcome in each(tasks, 1)}
    killers = {**killers, **found}
    lost = {number for number, killer in found.items() if not killer}
    for number in sorted(lost):
        print(f"survives once more: {chosen[number]}", flush=True)
    return {n: killer for n, killer in killers.items() if n not in lost and killer not in doubts.flaky}


def killer_in(outcome: Any) -> str:
    """What noticed the mutant in a run of `meet`; empty if nothing did."""
    if outcome is None:
        return HUNG
    if outcome["code"] in (PASSED, NOTHING_RAN):
        return ""
    return str(outcome["failed"][0]) if outcome["failed"] else f"pytest ended with exit code {outcome['code']}"


def prepare(base: Path) -> None:
    """Keep the fixtures and the stages of bundles that the code as it is makes, unless it was what made those there."""
    stamp, code = base / "code", code_digest()
    if stamp.is_file() and stamp.read_text() == code:
        return
    for name in ("kept", "caches"):
        shutil.rmtree(base / name, ignore_errors=True)
        (base / name).mkdir(parents=True)
    (base / "map.json").unlink(missing_ok=True)

    def work(folder: Path) -> int:
        return tests(folder, [Chosen(base / "kept", first_of=(*FIXTURES, *BUNDLES))], ["tests"])

    for _, code in each([partial(start, base, work, 900.0, shared=True)], 1):
        if code != 0:
            raise SystemExit(f"the tests that use the fixtures fail without a mutant: exit code {code}")
    stamp.write_text(code_digest())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, help="how many mutants to run (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="mutants of files whose path contains this")
    parser.add_argument("--line", type=int, action="append", help="mutants of this line only")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds of tests a mutant (default: %(default)g)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="forks at a time")
    parser.add_argument("--keep", type=Path, help="keep what was found out before the first mutant in this folder")
    parser.add_argument("--survivors", type=Path, help="write the survivors to this file, one per line")
    parser.add_argument("--log", type=Path, help="write every mutant to this file, with what killed it")
    options = parser.parse_args()
    everything = [
        mutant
        for path in FILES
        if (options.only or "") in str(path.relative_to(ROOT))
        for mutant in mutants(path)
        if not options.line or mutant.line in options.line
    ]
    chosen = everything
    if options.sample and options.sample < len(everything):
        chosen = random.Random(options.seed).sample(everything, options.sample)
    print(f"{len(everything)} mutants of {len(FILES)} files, {len(chosen)} chosen", flush=True)
    import_frameworks()
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        base, begin = (options.keep or Path(folder)).absolute(), time.monotonic()
        prepare(base)
        known, importing = known_tests(base, options.jobs)
        print(f"  {len(known)} tests known, {time.monotonic() - begin:.0f} s", flush=True)
        met = [tests_of(mutant, known, importing, options.budget) for mutant in chosen]
        for mutant in (mutant for mutant, run in zip(chosen, met, strict=True) if not run):
            print(f"survives, as no test runs it: {mutant}", flush=True)
        killers, begin = dict[int, str](), time.monotonic()
        tasks = [(number, partial(meet, base, chosen[number], run)) for number, run in enumerate(met) if run]
        for done, (index, outcome) in enumerate(each([task for _, task in tasks], options.jobs), start=1):
            number = tasks[index][0]
            if killer := killer_in(outcome):
                killers[number] = killer
            else:
                print(f"survives {len(met[number])} tests: {chosen[number]}", flush=True)
            if done % 25 == 0:
                print(f"  {done} run, {len(killers)} killed, {time.monotonic() - begin:.0f} s", flush=True)
        killers = confirmed(base, chosen, met, killers, known, options.jobs)
    survivors = [
        f"{mutant}{'' if met[n] else '  (no test runs it)'}" for n, mutant in enumerate(chosen) if n not in killers
    ]
    if options.survivors:
        options.survivors.parent.mkdir(parents=True, exist_ok=True)
        options.survivors.write_text("".join(f"{line}\n" for line in sorted(survivors)), encoding="utf-8")
    if options.log:
        lines = (f"{mutant}  | {killers.get(number, 'survives')}\n" for number, mutant in enumerate(chosen))
        options.log.write_text("".join(lines), encoding="utf-8")
    share = 100.0 * len(killers) / max(len(chosen), 1)
    print(f"{len(killers)} of {len(chosen)} mutants killed: {share:.1f} % (at least {LEAST:g} %)")
    return 0 if share >= LEAST else 1


if __name__ == "__main__":
    raise SystemExit(main())
