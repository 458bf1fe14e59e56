"""Counted costs of the demo's network in each form, by which the settings of a Raspberry Pi's target are chosen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from retinaface_edge.runtime.records import from_json

from .estimate import estimates_of
from .result import Estimate


@dataclass(frozen=True)
class DemoCount:
    """One TFLite file of the demo at 640x480 on a core: by which recipe it was made, and what it costs.

    An FP32 file is the same whatever the recipe is; its `recipe` is empty.
    """

    core: str
    artifact: str
    recipe: str
    image_columns: int
    cycles: int
    l1_misses: int
    l2_misses: int

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """Ranges of milliseconds with one thread and with four: estimated, not measured."""
        return estimates_of(self.core, self.cycles, self.l1_misses)


@dataclass(frozen=True)
class DemoCounts:
    """The file of the counts; `python tests/acceptance/arm64/cost_baseline.py` writes it."""

    kind: Literal["demo-counts"]
    format_version: Literal[1]
    counts: tuple[DemoCount, ...]


def demo_counts() -> tuple[DemoCount, ...]:
    """The counts that ship with the project."""
    text = resources.files(__package__).joinpath("demo_counts.json").read_text(encoding="utf-8")
    return from_json(DemoCounts, json.loads(text)).counts


def cheapest(counts: Sequence[DemoCount], core: str) -> DemoCount:
    """The form that takes the fewest cycles on a core, and of those the one that misses least."""
    return min((count for count in counts if count.core == core), key=lambda count: (count.cycles, count.l2_misses))
