"""What `make cost` compares with, and what the Pi's targets are chosen by, from results of `retinaface-edge cost`.

    python tests/acceptance/arm64/cost_baseline.py BASELINES BUNDLE=RESULT.json...

Writes the totals of each preset as BASELINES/RECIPE.json, without the rows by operator, which no gate reads; and all
counts into benchmarks/cost/demo_counts.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from retinaface_edge.benchmarks.cost.demo_counts import DemoCount, DemoCounts
from retinaface_edge.benchmarks.cost.result import CostResult
from retinaface_edge.benchmarks.results import read_result, write_result
from retinaface_edge.calibration.recipe import read_recipe
from retinaface_edge.runtime.records import to_json

DATA = Path(__file__).parents[3] / "benchmarks" / "cost" / "demo_counts.json"
GATED = ("balanced", "fast")


def main(baselines: Path, counted: Sequence[tuple[Path, Path]]) -> None:
    found: dict[tuple[str, str, str, int], DemoCount] = {}
    for bundle, path in counted:
        recipe, result = read_recipe(str(bundle / "recipe.json")), read_result(path, CostResult)
        for cost in result.artifacts:
            form = (recipe.name, recipe.image_columns) if "int8" in cost.artifact else ("", 1)
            total = cost.total
            one = DemoCount(cost.core, cost.artifact, *form, total.cycles, total.l1_misses, total.l2_misses)
            found[(cost.core, cost.artifact, *form)] = one
        if recipe.name in GATED and recipe.image_columns == read_recipe(recipe.name).image_columns:
            artifacts = tuple(replace(artifact, operators=(), estimates=()) for artifact in result.artifacts)
            write_result(baselines / f"{recipe.name}.json", replace(result, artifacts=artifacts))
    counts = DemoCounts("demo-counts", 1, tuple(found[key] for key in sorted(found)))
    DATA.write_text(json.dumps(to_json(counts), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    pairs = [argument.partition("=") for argument in sys.argv[2:]]
    main(Path(sys.argv[1]), [(Path(bundle), Path(result)) for bundle, _, result in pairs])
