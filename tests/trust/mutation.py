"""Change the code one small thing at a time, and see whether a test notices.

    python tests/trust/mutation.py --sample 300 --survivors survivors.txt

Mutants of `runtime/` and the TFLite lowering: comparisons, arithmetic, conditions, constants, returns and statements.
Each runs in a fork of a process that has imported the frameworks, against the tests of its module; the mutated source
is given to the importer and never written. A mutant whose tests fail, or hang, is killed. Survivors are listed to be
read.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).parents[2]
SECONDS = 240
FRAMEWORKS = ("torch", "onnx", "onnxruntime", "openvino", "ai_edge_litert.interpreter", "skimage.data", "hypothesis")

TESTS: dict[str, tuple[str, ...]] = {
    "runtime/__init__.py": (),
    "runtime/align.py": ("align",),
    "runtime/backends/__init__.py": ("detector", "house"),
    "runtime/backends/onnxruntime.py": ("detector", "soak"),
    "runtime/backends/openvino.py": ("detector", "soak"),
    "runtime/backends/tflite.py": ("detector", "soak", "tflite_legacy"),
    "runtime/bundle.py": ("bundle", "trust", "fuzz"),
    "runtime/detector.py": ("detector", "soak"),
    "runtime/draw.py": ("draw",),
    "runtime/errors.py": (),
    "runtime/images.py": ("trust", "cli"),
    "runtime/manifest_facts.py": ("trust", "fuzz"),
    "runtime/model_card.py": ("trust",),
    "runtime/postprocess.py": ("postprocess", "detector", "c_twin"),
    "runtime/preprocess.py": ("preprocess", "detector", "c_twin"),
    "runtime/resample.py": ("preprocess", "c_twin"),
    "runtime/sbom.py": ("trust",),
    "runtime/signature.py": ("trust",),
    "runtime/spec.py": ("bundle", "fuzz", "postprocess", "preprocess", "detector", "c_twin"),
    "runtime/target.py": ("recipe", "cli"),
    "runtime/twin.py": ("c_twin",),
    "runtime/video.py": ("video",),
    "export/lower_tflite.py": ("fuzz", "lowering", "reference"),
    "export/tflite_file.py": ("lowering",),
}
"""The test files of a module, the quick ones first."""

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


DELETED = (ast.Raise, ast.AugAssign, ast.Continue, ast.Break)


@dataclass(frozen=True)
class Mutant:
    """A module with one change: where it is, and what was there before and after."""

    path: str
    line: int
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.before}  ->  {self.after}"


def mutants(path: str) -> list[Mutant]:
    """Every mutant of a file."""
    text = (ROOT / path).read_text(encoding="utf-8")
    tree = ast.parse(text)
    found = []
    for index, node in enumerate(ast.walk(tree)):
        for change in range(len(list(_changes(copy.deepcopy(node))))):
            changed = copy.deepcopy(tree)
            for place, parent, field, position in _places(changed):
                if place == index:
                    target = getattr(parent, field) if position is None else getattr(parent, field)[position]
                    before = ast.unparse(target)
                    replacement = list(_changes(target))[change]
                    if position is None:
                        setattr(parent, field, replacement)
                    else:
                        getattr(parent, field)[position] = replacement
                    source = ast.unparse(ast.fix_missing_locations(changed))
                    found.append(
                        Mutant(path, getattr(node, "lineno", 0), _line(before), _line(ast.unparse(replacement)), source)
                    )
                    break
    return found


def _places(tree: ast.AST) -> Iterator[tuple[int, ast.AST, str, int | None]]:
    """Where each node of `ast.walk` hangs, by its number; annotations and messages of errors are left out."""
    numbers = {id(node): index for index, node in enumerate(ast.walk(tree))}
    pending: list[ast.AST] = [tree]
    while pending:
        parent = pending.pop()
        for field, value in ast.iter_fields(parent):
            if field in ("annotation", "returns", "decorator_list") or isinstance(parent, ast.JoinedStr):
                continue
            if isinstance(parent, ast.Raise) and field in ("exc", "cause"):
                continue
            for position, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(child, ast.AST):
                    yield numbers[id(child)], parent, field, position
                    pending.append(child)


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """The changed forms of a node, each a new node."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield ast.Compare(node.left, [COMPARISONS[type(node.ops[0])](), *node.ops[1:]], node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        yield ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(node.value + 1)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.If):
        yield ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.Return) and node.value is not None:
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, DELETED) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield ast.Pass()


def _line(code: str) -> str:
    first = code.strip().splitlines()[0]
    return first if len(first) <= 90 else first[:87] + "..."


class _Importer(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module of the package from a mutant's source."""

    def __init__(self, mutant: Mutant) -> None:
        parts = Path(mutant.path).with_suffix("").parts
        self.package = parts[-1] == "__init__"
        self.name = ".".join(("retinaface_edge", *(parts[:-1] if self.package else parts)))
        self.file = ROOT / "retinaface_edge" / mutant.path
        self.code: CodeType = compile(mutant.source, str(self.file), "exec")

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(
            name, self.file, loader=self, submodule_search_locations=[str(self.file.parent)] if self.package else None
        )

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)


def survives(mutant: Mutant | None, tests: Sequence[str]) -> bool:
    """Whether all `tests` pass with the mutant, or with the code as it is, in a fork of this process."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2) if mutant else (0,):
            os.dup2(null, stream)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = 1
        try:
            import pytest

            os.chdir(ROOT)
            sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
            if mutant:
                sys.meta_path.insert(0, _Importer(mutant))
            options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly"]
            code = int(pytest.main([*options, *(f"tests/test_{name}.py" for name in tests)]))
        finally:
            os._exit(min(code, 255))
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, help="how many mutants to run (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="mutants of files whose path contains this")
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument("--unchecked", action="store_true", help="take it that the tests pass without a mutant")
    parser.add_argument("--survivors", type=Path, help="write the survivors to this file, one a line")
    options = parser.parse_args()
    for name in FRAMEWORKS:
        importlib.import_module(name)
    everything = [m for path, tests in TESTS.items() if tests and (options.only or "") in path for m in mutants(path)]
    chosen = everything
    if options.sample and options.sample < len(everything):
        chosen = random.Random(options.seed).sample(everything, options.sample)
    print(f"{len(everything)} mutants, {len(chosen)} chosen", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("RETINAFACE_EDGE_TEST_CACHE", cache)
        for tests in () if options.unchecked else sorted({TESTS[mutant.path] for mutant in chosen}):
            if not survives(None, tests):
                print(f"the tests {', '.join(tests)} fail without a mutant")
                return 1
        begin, survivors, ran = time.monotonic(), [], 0
        for mutant in chosen:
            if options.minutes and time.monotonic() - begin > options.minutes * 60:
                break
            ran += 1
            if survives(mutant, TESTS[mutant.path]):
                survivors.append(str(mutant))
                print(mutant, flush=True)
                if options.survivors:
                    options.survivors.write_text("\n".join(survivors) + "\n", encoding="utf-8")
            if ran % 25 == 0:
                print(f"  {ran} run, {ran - len(survivors)} killed, {time.monotonic() - begin:.0f} s", flush=True)
    print(f"{ran - len(survivors)} of {ran} mutants killed: {100 * (ran - len(survivors)) / max(ran, 1):.1f} %")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
