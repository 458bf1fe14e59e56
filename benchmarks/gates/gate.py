"""Gates: what a result must hold, as data; and the JUnit report of what it did not.

A gate file is JSON: `{"format_version": 1, "rules": [...]}`. A rule names a floor and a figure (`figures.KNOWN`), one
or both of `at_least` and `at_most`, and may narrow itself by shell patterns over `artifact`, `reference` and `of`.
Rules on `missed` and `invented` faces may count only those from `least_size` (input pixels) and `least_score` on.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ..inference.network_under_test import MeasurementError
from .figures import KNOWN, LOST_FIGURES, Figure, figures_of

FORMAT_VERSION = 1
DEFAULT = "default_gate.json"
PATTERNS = ("artifact", "reference", "of")
LIMITS = ("at_least", "at_most")
NARROWING = ("least_size", "least_score")


@dataclass(frozen=True)
class Rule:
    """One demand on one figure. See the module's text."""

    name: str
    floor: str
    figure: str
    artifact: str = "*"
    reference: str = "*"
    of: str = "*"
    at_least: float | None = None
    at_most: float | None = None
    least_size: float = 0.0
    least_score: float = 0.0

    def applies_to(self, figure: Figure) -> bool:
        """Whether the rule speaks of this figure."""
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
class Outcome:
    """A rule applied to one figure; `figure` is None when the rule speaks of nothing in the result.

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
        worst = f"; worst image: {figure.worst_image}" if figure.worst_image else ""
        return (
            f"{figure.artifact}{against}, {figure.floor}, {figure.of}: {figure.name} is {value}, "
            f"wanted {self.rule.limits}{worst}"
        )


def read_gate(path: Path | None) -> list[Rule]:
    """The rules of a gate file, or of the default gate. Raises `MeasurementError` naming the rule that is wrong."""
    name = str(path) if path else f"the default gate ({DEFAULT})"
    try:
        if path:
            text = path.read_text(encoding="utf-8")
        else:
            text = resources.files(__package__).joinpath(DEFAULT).read_text(encoding="utf-8")
        content = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise MeasurementError(f"{name} is no readable JSON ({error})") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION or not isinstance(content.get("rules"), list) or not content["rules"]:
        raise MeasurementError(
            f'{name} is no gate; a gate is {{"format_version": {FORMAT_VERSION}, "rules": [{{"name": ..., "floor": '
            '"tensors", "figure": "sqnr_db", "at_least": 20}]}'
        )
    return [_rule(fields, index, name) for index, fields in enumerate(content["rules"], start=1)]


def apply_gate(rules: Sequence[Rule], result: Mapping[str, Any]) -> list[Outcome]:
    """Judge a result. Rules on floors that the result does not have are left out.

    Raises `MeasurementError` when no rule finds anything to judge: such a gate would pass whatever happens.
    """
    outcomes: list[Outcome] = []
    floors = {figure.floor for figure in figures_of(result)}
    for rule in rules:
        if rule.floor not in floors:
            continue
        figures = [f for f in figures_of(result, rule.least_size, rule.least_score) if rule.applies_to(f)]
        outcomes += [
            Outcome(rule, figure, None if figure.value is None else rule.holds(figure.value)) for figure in figures
        ] or [Outcome(rule, None, None)]
    if all(outcome.passed is None for outcome in outcomes):
        raise MeasurementError("no rule of the gate speaks of anything in this result; check its floors and patterns")
    return outcomes


def failures(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that do not hold."""
    return [outcome for outcome in outcomes if outcome.passed is False]


def junit(outcomes: Sequence[Outcome], suite: str) -> bytes:
    """A JUnit XML report: a test case a rule and figure; what had no value is skipped."""
    failed = failures(outcomes)
    skipped = sum(outcome.passed is None for outcome in outcomes)
    counts = {"tests": str(len(outcomes)), "failures": str(len(failed)), "errors": "0", "skipped": str(skipped)}
    root = ElementTree.Element("testsuites", counts)
    group = ElementTree.SubElement(root, "testsuite", {"name": suite, **counts})
    for outcome in outcomes:
        figure = outcome.figure
        place = f"{figure.artifact} / {figure.reference} / {figure.of}" if figure else "nothing"
        case = ElementTree.SubElement(
            group, "testcase", {"classname": f"{suite}.{outcome.rule.floor}", "name": f"{outcome.rule.name} [{place}]"}
        )
        if outcome.passed is False:
            ElementTree.SubElement(case, "failure", {"message": outcome.sentence}).text = outcome.sentence
        elif outcome.passed is None:
            ElementTree.SubElement(case, "skipped", {"message": outcome.sentence})
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _rule(fields: object, index: int, gate: str) -> Rule:
    where = f"rule {index} of {gate}"
    if not isinstance(fields, dict):
        raise MeasurementError(f"{where} is {fields!r}, not an object")
    known = ("name", "floor", "figure", *PATTERNS, *LIMITS, *NARROWING, "why")
    if unknown := sorted(set(fields) - set(known)):
        raise MeasurementError(f"{where} has {unknown[0]!r}, which is not one of: {', '.join(known)}")
    floor, figure = fields.get("floor"), fields.get("figure")
    if not isinstance(floor, str) or floor not in KNOWN:
        raise MeasurementError(f"{where} has floor {floor!r}, which is not one of: {', '.join(KNOWN)}")
    if not isinstance(figure, str) or figure not in KNOWN[floor]:
        raise MeasurementError(f"{where} has figure {figure!r}; the floor {floor} has: {', '.join(KNOWN[floor])}")
    for key in (*LIMITS, *NARROWING):
        if key in fields and (isinstance(fields[key], bool) or not isinstance(fields[key], int | float)):
            raise MeasurementError(f"{where} has {key} {fields[key]!r}, which is not a number")
    for key in ("name", *PATTERNS):
        if not isinstance(fields.get(key, ""), str):
            raise MeasurementError(f"{where} has {key} {fields[key]!r}, which is not text")
    if not any(limit in fields for limit in LIMITS):
        raise MeasurementError(f"{where} has neither at_least nor at_most, so it demands nothing")
    if any(key in fields for key in NARROWING) and figure not in LOST_FIGURES:
        raise MeasurementError(f"{where} has {' and '.join(NARROWING)}, which only {' and '.join(LOST_FIGURES)} know")
    name = fields.get("name", f"{floor} {figure}")
    return Rule(**{"name": name, **{key: value for key, value in fields.items() if key not in ("name", "why")}})
