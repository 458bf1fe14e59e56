"""The demo's counts: targets follow them, `make cost` compares with the same ones, and the README shows them."""

from __future__ import annotations

import pytest
from conftest import ROOT

from retinaface_edge.benchmarks.cost.cores import CORES, read_core, target_of
from retinaface_edge.benchmarks.cost.demo_counts import DemoCount, cheapest, demo_counts
from retinaface_edge.benchmarks.cost.result import CostResult
from retinaface_edge.benchmarks.results import read_result
from retinaface_edge.calibration.recipe import IMAGE_COLUMNS, PRESETS, read_recipe
from retinaface_edge.runtime.host.targets import TARGETS, read_target

BASELINES = ROOT / "tests" / "acceptance" / "arm64" / "baselines"


@pytest.mark.parametrize("core", CORES)
def test_a_pis_target_is_what_costs_its_core_the_least(core: str) -> None:
    target, best = read_target(target_of(core)), cheapest(demo_counts(), core)
    assert (target.backends[0], target.precision) == tuple(best.artifact.split())
    assert (target.recipe, target.image_columns) == (best.recipe, best.image_columns)
    counted = {count.recipe for count in demo_counts() if count.core == core}
    assert counted == {"", *PRESETS}, "every preset was counted, and FP32"


def test_the_cheapest_of_equal_cycles_misses_least() -> None:
    def count(core: str, cycles: int, misses: int) -> DemoCount:
        return DemoCount(core, "tflite int8", "fast", 2, cycles, 1, misses)

    counts = [count("a", 2, 1), count("a", 1, 9), count("a", 1, 3), count("b", 0, 0)]
    assert cheapest(counts, "a") == counts[2]


@pytest.mark.parametrize("name", TARGETS)
def test_targets_name_recipes_that_there_are(name: str) -> None:
    target = read_target(name)
    assert target.recipe in PRESETS
    assert target.image_columns in IMAGE_COLUMNS


@pytest.mark.parametrize("recipe", ["balanced", "fast"])
def test_the_baselines_are_the_same_counts(recipe: str) -> None:
    baseline = read_result(BASELINES / f"{recipe}.json", CostResult)
    columns = read_recipe(recipe).image_columns
    found = {(count.core, count.artifact, count.recipe, count.image_columns): count for count in demo_counts()}
    assert {cost.core for cost in baseline.artifacts} == set(CORES)
    for cost in baseline.artifacts:
        form = (recipe, columns) if "int8" in cost.artifact else ("", 1)
        one = found[(cost.core, cost.artifact, *form)]
        assert (one.cycles, one.l1_misses, one.l2_misses) == (
            cost.total.cycles,
            cost.total.l1_misses,
            cost.total.l2_misses,
        )


def test_the_readme_shows_the_estimates() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for core in CORES:
        best = cheapest(demo_counts(), core)
        fp32 = next(one for one in demo_counts() if one.core == core and one.artifact == "tflite fp32")
        for count, name in ((best, "TFLite INT8"), (fp32, "TFLite FP32")):
            spans = " | ".join(f"{one.lowest_ms:.0f} to {one.highest_ms:.0f}" for one in count.estimates)
            assert f"| {read_core(core).board}, {name} | {spans} |" in text
    assert "estimated, not measured" in text.lower()
