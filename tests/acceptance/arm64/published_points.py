"""The counts that milliseconds are fitted to, counted again: MobileNets whose times on a Raspberry Pi 4 are published.

    python tests/acceptance/arm64/published_points.py [FOLDER OF THE USER SPACE] [--write]

Prints each point with its error when it is left out of the fit, and fails when the counts in the project differ by
more than a thousandth. `--write` puts the new counts into the project.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from mobilenets import NETWORKS

from retinaface_edge.benchmarks.cost import estimate
from retinaface_edge.benchmarks.cost.emulator.user_space import UserSpace, open_user_space
from retinaface_edge.benchmarks.cost.estimate import (
    FITTED_CORE,
    FITTED_THREADS,
    Point,
    PublishedPoints,
    fit,
    milliseconds,
    published_points,
)
from retinaface_edge.benchmarks.cost.result import ArtifactCost, Part
from retinaface_edge.benchmarks.cost.run import Job, count_model
from retinaface_edge.runtime.records import to_json

PROJECT = Path(__file__).parents[3]
DATA = Path(estimate.__file__).with_name("published_points.json")
TOLERANCE = 1e-3


def count(space: UserSpace, name: str) -> ArtifactCost:
    """Count one network, named as `MobileNet v1 INT8`, on the fitted core."""
    network, _, precision = name.rpartition(" ")
    job = Job(name, Part.MESH, FITTED_CORE, NETWORKS[network](precision == "INT8"))
    return count_model(space, job, np.empty(0, np.uint8))


def main(folder: Path, write: bool) -> int:
    """Count, print, compare. Gives the exit code."""
    space, points = open_user_space(folder / "root"), published_points()
    costs = {point.name: count(space, point.name) for point in points.fitted}

    def counted(point: Point) -> Point:
        total = costs[point.name].total
        return replace(point, cycles=total.cycles, l1_misses=total.l1_misses)

    fresh = PublishedPoints(points.gigahertz, tuple(map(counted, points.fitted)), tuple(map(counted, points.checked)))
    found = fit(fresh.fitted, fresh.gigahertz)
    for point, error in zip(fresh.fitted, found.left_out_errors, strict=True):
        macs, cycles, misses = costs[point.name].macs / 1e6, point.cycles / 1e6, point.l1_misses / 1e6
        print(f"{point.name}: {macs:.0f} M MAC, {cycles:.1f} M cycles, {misses:.2f} M L1 misses")
        print(f"  published {point.milliseconds:g} ms; left out of the fit {error:+.1%}")
    print(f"{found.nanoseconds_per_miss:.2f} ns per L1 miss; range ±{found.range_share:.0%}")
    for point in fresh.checked:
        low, high = (milliseconds(point, fresh.gigahertz, found.nanoseconds_per_miss * n) for n in (1, FITTED_THREADS))
        published = f"published {point.milliseconds:g} ms, range {low:.0f} to {high:.0f}"
        print(f"check: {point.name}, {point.threads} thread: {published}")
    if write:
        DATA.write_text(json.dumps(to_json(fresh), indent=2) + "\n", encoding="utf-8")
    old = [(p.cycles, p.l1_misses) for p in (*points.fitted, *points.checked)]
    new = [(p.cycles, p.l1_misses) for p in (*fresh.fitted, *fresh.checked)]
    same = np.allclose(old, new, rtol=TOLERANCE)
    print("the counts are the project's" if same else "the counts are not the project's")
    return 0 if same or write else 1


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--write"]
    sys.exit(main(Path(arguments[0]) if arguments else PROJECT / "build" / "arm64", "--write" in sys.argv))
