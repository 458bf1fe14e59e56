"""Gates: rules that a result must meet, as data; and the JUnit report of those that it did not.

A gate file is JSON: `{"format_version": 1, "needs": {...}, "rules": [...]}`. `needs` says how much input a verdict
takes (`sufficiency.py`). A rule names a floor and one of its figures (`figures.KNOWN`) and one or both of `at_least`
and `at_most`. It may be limited to some artifacts, references and parts (`of`) by shell patterns. Rules on `missed` and
`invented` faces may count only those from `least_size` (input pixels) and `least_score` on.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from retinaface_edge.runtime.io.untrusted import read_json
from retinaface_edge.runtime.records import RecordError, from_json
from retinaface_edge.runtime.text import escaped, printable

from ..errors import MeasurementError
from .figures import FORMER_LAYER_FIGURES, KNOWN, LOST_FIGURES, Figure, Floor, JudgedResult, figures_of

DEFAULT = "default_gate.json"
PATTERNS = ("artifact", "reference", "of")
LIMITS = ("at_least", "at_most")
EXAMPLE = (
    'A gate is {"format_version": 1, "rules": [{"name": ..., "floor": "tensors", "figure": "sqnr_db", "at_least": 20}]}'
)


@dataclass(frozen=True)
class Rule:
    """One demand on one figure, for the artifacts, references and parts that the patterns match.

    An `optional` rule may match nothing that was measured, for instance in a bundle without its artifact. Raises
    `ValueError` when it demands nothing, or a figure that its floor does not have.
    """

    floor: Floor
    figure: str
    name: str = ""
    artifact: str = "*"
    reference: str = "*"
    of: str = "*"
    at_least: float | None = None
    at_most: float | None = None
    least_size: float | None = None
    least_score: float | None = None
    why: str = ""
    optional: bool = False

    def __post_init__(self) -> None:
        if self.figure not in KNOWN[self.floor]:
            known = ", ".join(KNOWN[self.floor])
            raise ValueError(f"there is no figure {self.figure!r}; the floor {self.floor} has: {known}")
        if self.at_least is None and self.at_most is None:
            raise ValueError("it has neither at_least nor at_most, so it demands nothing")
        if (self.least_size, self.least_score) != (None, None) and self.figure not in LOST_FIGURES:
            raise ValueError(f"least_size and least_score are for {' and '.join(LOST_FIGURES)} only")
        if self.floor is Floor.LAYERS:
            object.__setattr__(self, "figure", FORMER_LAYER_FIGURES.get(self.figure, self.figure))
        if not self.name:
            object.__setattr__(self, "name", f"{self.floor} {self.figure}")

    def applies_to(self, figure: Figure) -> bool:
        """Whether the rule is about this figure."""
        return (self.floor, self.figure) == (figure.floor, figure.name) and all(
            fnmatch.fnmatchcase(getattr(figure, pattern), getattr(self, pattern)) for pattern in PATTERNS
        )

    def holds(self, value: float) -> bool:
        """Whether a value is within the limits."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    @property
    def limits(self) -> str:
        """For people, for instance `at least 20`."""
        return " and ".join(
            f"{limit.replace('_', ' ')} {getattr(self, limit):g}"
            for limit in LIMITS
            if getattr(self, limit) is not None
        )


@dataclass(frozen=True)
class Needs:
    """How much input a verdict takes: pictures, faces on them, and the share of pictures that may be unreadable."""

    images: int = 1
    faces: int = 1
    unreadable_share: float = 0.05

    def __post_init__(self) -> None:
        if min(self.images, self.faces) < 0 or not 0.0 <= self.unreadable_share <= 1.0:
            raise ValueError("it needs 0 or more images and faces, and a share between 0 and 1")


@dataclass(frozen=True)
class Gate:
    """A gate file: the rules, at least one, and the input that they need."""

    format_version: Literal[1]
    rules: tuple[Rule, ...]
    needs: Needs = Needs()

    def __post_init__(self) -> None:
        if not self.rules:
            raise ValueError("it has no rules")


@dataclass(frozen=True)
class Outcome:
    """A rule applied to one figure; `figure` is None when the rule finds nothing in the result.

    `passed` is None where there was no value to judge.
    """

    rule: Rule
    figure: Figure | None
    passed: bool | None

    @property
    def sentence(self) -> str:
        """What was measured, what was wanted, and where it is worst."""
        if self.figure is None:
            return f"{self.rule.name}: nothing in this result to judge"
        figure = self.figure
        value = "no value" if figure.value is None else f"{figure.value:.4g}"
        against = f" against {figure.reference}" if figure.reference and figure.reference != figure.artifact else ""
        worst = f"; worst image: {printable(figure.worst_image)}" if figure.worst_image else ""
        return (
            f"{figure.artifact}{against}, {figure.floor}, {figure.of}: {figure.name} is {value}, "
            f"wanted {self.rule.limits}{worst}"
        )


def read_gate(path: Path | None) -> Gate:
    """Read a gate file, or the default gate. Raises `MeasurementError` naming the field that is wrong."""
    name = str(path) if path else f"the default gate ({DEFAULT})"
    try:
        if path:
            content = read_json(path)
        else:
            content = json.loads(
                resources.files(__name__.rpartition(".")[0]).joinpath(DEFAULT).read_text(encoding="utf-8")
            )
    except (OSError, ValueError, RecursionError) as error:
        raise MeasurementError(f"{name} is not readable JSON ({error})") from error
    try:
        return from_json(Gate, content)
    except RecordError as error:
        raise MeasurementError(f"{name} is not a gate: {error}. {EXAMPLE}") from error


def apply_gate(gate: Gate, result: JudgedResult) -> list[Outcome]:
    """Judge a result. Rules on floors that the result does not have are left out.

    Raises `MeasurementError` when no rule finds anything to judge: such a gate would pass whatever happens.
    """
    outcomes = outcomes_of(gate, [result])
    if all(outcome.passed is None for outcome in outcomes):
        raise MeasurementError("no rule of the gate applies to anything in this result; check its floors and patterns")
    return outcomes


def outcomes_of(gate: Gate, results: Sequence[JudgedResult]) -> list[Outcome]:
    """Judge several results together. Empty when no rule is about a floor that they have."""
    return [outcome for result in results for outcome in _applied(gate, result)]


def _applied(gate: Gate, result: JudgedResult) -> Iterator[Outcome]:
    floors = {figure.floor for figure in figures_of(result)}
    for rule in gate.rules:
        if rule.floor not in floors:
            continue
        least = (rule.least_size or 0.0, rule.least_score or 0.0)
        figures = [figure for figure in figures_of(result, *least) if rule.applies_to(figure)]
        for figure in figures:
            yield Outcome(rule, figure, None if figure.value is None else rule.holds(figure.value))
        if not figures:
            yield Outcome(rule, None, None)


def failures(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that do not hold."""
    return [outcome for outcome in outcomes if outcome.passed is False]


def junit(outcomes: Sequence[Outcome], suite: str, shortfalls: Sequence[str] = ()) -> bytes:
    """A JUnit XML report: one test case per rule and figure; what had no value is skipped.

    Each of `shortfalls`, why this is no verdict (`sufficiency.py`), is a test case that failed.
    """
    failed = [*failures(outcomes), *shortfalls]
    skipped = sum(outcome.passed is None for outcome in outcomes)
    counts = {
        "tests": str(len(outcomes) + len(shortfalls)),
        "failures": str(len(failed)),
        "errors": "0",
        "skipped": str(skipped),
    }
    root = ElementTree.Element("testsuites", counts)
    group = ElementTree.SubElement(root, "testsuite", {"name": suite, **counts})
    for outcome in outcomes:
        figure = outcome.figure
        place = f"{figure.artifact} / {figure.reference} / {figure.of}" if figure else "nothing"
        case = ElementTree.SubElement(
            group, "testcase", {"classname": f"{suite}.{outcome.rule.floor}", "name": f"{outcome.rule.name} [{place}]"}
        )
        sentence = escaped(outcome.sentence)  # XML has no control characters
        if outcome.passed is False:
            ElementTree.SubElement(case, "failure", {"message": sentence}).text = sentence
        elif outcome.passed is None:
            ElementTree.SubElement(case, "skipped", {"message": sentence})
    for reason in shortfalls:
        case = ElementTree.SubElement(group, "testcase", {"classname": f"{suite}.input", "name": "not judged"})
        ElementTree.SubElement(case, "failure", {"message": escaped(reason)}).text = escaped(reason)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"
