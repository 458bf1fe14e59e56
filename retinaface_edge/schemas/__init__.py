"""JSON Schemas (2020-12) of the files that the program writes, and of those that it reads as settings.

They are generated from the types that read and write these files. Folders: `bundle/` (files of a bundle), `results/`
(from the verbs that measure), `output/` (from the other verbs with `--json`), `settings/` (gates, budgets, targets and
boards). `python -m retinaface_edge.schemas` generates the files again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from retinaface_edge.runtime.records import schema

NAMES = (
    "bundle/calibration",
    "bundle/device",
    "bundle/manifest",
    "bundle/recipe",
    "output/detect",
    "output/doctor",
    "output/inspect",
    "output/verify",
    "results/bench",
    "results/choose",
    "results/compare",
    "results/cost",
    "results/drift",
    "results/eval",
    "results/verification",
    "settings/boards",
    "settings/budget",
    "settings/gate",
    "settings/target",
)


def read_schema(name: str) -> dict[str, Any]:
    """The schema of one of `NAMES`, as it is shipped. Raises `KeyError` for another name."""
    if name not in NAMES:
        raise KeyError(name)
    return dict(json.loads(resources.files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")))


def generate() -> dict[str, dict[str, Any]]:
    """Each schema by its name, from the types of now."""
    return {name: schema(kind, title) for name, (kind, title) in sorted(_types().items())}


def _types() -> Mapping[str, tuple[Any, str]]:
    from retinaface_edge.benchmarks.cost.board import Boards
    from retinaface_edge.benchmarks.gates.gate import Gate
    from retinaface_edge.calibration.recipe import Recipe
    from retinaface_edge.calibration.record import CalibrationRecord
    from retinaface_edge.runtime.bundle.manifest import Manifest
    from retinaface_edge.runtime.host.artifact_choice import Pick
    from retinaface_edge.runtime.host.targets import Budget, Target

    from ..cli.json_output import DetectLine, Inspection, Verification

    return {
        "bundle/calibration": (CalibrationRecord, "calibration.json of a bundle"),
        "bundle/device": (Pick, "device.json of a bundle, written by bench --pick --store"),
        "bundle/manifest": (Manifest, "manifest.json of a bundle"),
        "bundle/recipe": (Recipe, "recipe.json of a bundle, and a file for build --recipe"),
        "output/detect": (DetectLine, "One line of retinaface-edge detect --json"),
        "output/doctor": (Mapping[str, str], "retinaface-edge doctor --json: a text about each subject"),
        "output/inspect": (Inspection, "retinaface-edge inspect --json"),
        "output/verify": (Verification, "retinaface-edge verify --json"),
        "settings/boards": (Boards, "The boards that cost --calibrate has kept"),
        "settings/budget": (Budget, "A budget of bench --budget"),
        "settings/gate": (Gate, "A gate file, for --gate"),
        "settings/target": (Target, "A target of build --target"),
        **_results(),
    }


def _results() -> Mapping[str, tuple[Any, str]]:
    from retinaface_edge.benchmarks.accuracy.result import CompareResult, EvalResult
    from retinaface_edge.benchmarks.choose.result import ChooseResult
    from retinaface_edge.benchmarks.cost.result import CostResult
    from retinaface_edge.benchmarks.drift.result import DriftResult
    from retinaface_edge.benchmarks.identity.result import VerificationResult
    from retinaface_edge.benchmarks.latency.result import BenchResult

    return {
        "results/bench": (BenchResult, "Result of retinaface-edge bench"),
        "results/choose": (ChooseResult, "Result of retinaface-edge choose"),
        "results/compare": (CompareResult, "Result of retinaface-edge compare"),
        "results/cost": (CostResult, "Result of retinaface-edge cost"),
        "results/drift": (DriftResult, "Result of retinaface-edge drift"),
        "results/eval": (EvalResult, "Result of retinaface-edge eval"),
        "results/verification": (VerificationResult, "Result of retinaface-edge eval --pairs"),
    }
