"""Mutants of a module: its source with one small thing changed.

Comparisons, arithmetic, conditions, constants, returns and statements. Annotations, the messages of errors and what is
only there for type checkers are left alone.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

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
    """A change of a file: which node of `ast.walk` (`place`) takes which of its changed forms (`form`).

    `lines` are those of the innermost statement around it, without the statements inside that; what runs one of them
    may notice.
    """

    path: Path
    place: int
    form: int
    lines: range
    line: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}:{self.line}: {self.before}  ->  {self.after}"

    def code(self) -> CodeType:
        """The changed module, compiled; line numbers stay."""
        tree = ast.parse(self.path.read_text(encoding="utf-8"))
        for place, parent, field, position, _ in _places(tree):
            if place == self.place:
                target = getattr(parent, field) if position is None else getattr(parent, field)[position]
                changed = ast.copy_location(list(_changes(copy.deepcopy(target)))[self.form], target)
                if position is None:
                    setattr(parent, field, changed)
                else:
                    getattr(parent, field)[position] = changed
                break
        return compile(ast.fix_missing_locations(tree), str(self.path), "exec")


def mutants(path: Path) -> list[Mutant]:
    """Every mutant of a file, from its first line to its last."""
    tree, found = ast.parse(path.read_text(encoding="utf-8")), []
    for place, parent, field, position, statement in _places(tree):
        target = getattr(parent, field) if position is None else getattr(parent, field)[position]
        for form, changed in enumerate(_changes(copy.deepcopy(target))):
            before, after = (_line(ast.unparse(ast.fix_missing_locations(node))) for node in (target, changed))
            found.append(Mutant(path, place, form, _own_lines(statement), target.lineno, before, after))
    return sorted(found, key=lambda mutant: (mutant.line, mutant.place, mutant.form))


def _places(tree: ast.Module) -> Iterator[tuple[int, ast.AST, str, int | None, ast.stmt]]:
    """Where each node that may change hangs, by its number in `ast.walk`, and the statement around it."""
    numbers = {id(node): index for index, node in enumerate(ast.walk(tree))}
    pending: list[tuple[ast.AST, ast.stmt | None]] = [(tree, None)]
    while pending:
        parent, statement = pending.pop()
        for field, value in ast.iter_fields(parent):
            if field in ("annotation", "returns", "decorator_list") or isinstance(parent, ast.JoinedStr):
                continue
            if isinstance(parent, ast.Raise) and field in ("exc", "cause"):
                continue
            for position, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if not isinstance(child, ast.AST) or _is_for_type_checkers(child):
                    continue
                inner = child if isinstance(child, ast.stmt) else statement
                if inner is not None:
                    yield numbers[id(child)], parent, field, position, inner
                pending.append((child, inner))


def _is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _own_lines(statement: ast.stmt) -> range:
    """The lines of a statement up to the first statement inside it."""
    body = getattr(statement, "body", None)
    last = body[0].lineno - 1 if isinstance(body, list) and body else statement.end_lineno
    return range(statement.lineno, max(last or 0, statement.lineno) + 1)


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
    elif isinstance(node, ast.Return) and not (node.value is None or ast.unparse(node.value) == "None"):
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, DELETED) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield ast.Pass()


def _line(code: str) -> str:
    first = code.strip().splitlines()[0]
    return first if len(first) <= 90 else first[:87] + "..."
