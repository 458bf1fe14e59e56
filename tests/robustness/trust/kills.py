"""Kill builds at random instants and look at what is left: the old bundle or the new one, whole, and nothing else.

    python tests/robustness/trust/kills.py --kills 200

Two bundles take turns at one output. A third of the builds begin with an empty cache, a third find their stages in it,
and a third, too, but are killed after they have begun to write.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from retinaface_edge.runtime import Bundle

ROOT = Path(__file__).parents[3]
IMAGES = (2, 3)
SECONDS_OF_WRITING = 0.15


@dataclass
class Outcome:
    """How many builds were killed, how many ended before, and how many kills left the old or the new bundle."""

    killed: int = 0
    too_late: int = 0
    old: int = 0
    new: int = 0


def command(output: Path, cache: Path, images: int) -> list[str]:
    return [
        *(sys.executable, "-m", "retinaface_edge", "build", "--images", str(images), "--recipe", "fast"),
        *("--size", "160x128", "--cache", str(cache), "--output", str(output), "--force"),
    ]


def build(output: Path, cache: Path, images: int) -> float:
    begin = time.monotonic()
    subprocess.run(command(output, cache, images), check=True, capture_output=True, cwd=ROOT)
    return time.monotonic() - begin


def kill_builds(kills: int, seed: int, folder: Path, cold: bool = True) -> Outcome:
    """Kill that many builds. Raises `AssertionError` or `BundleError` at the first that leaves something else."""
    chance = random.Random(seed)
    output, warm = folder / "out" / "bundle", folder / "warm"
    whole = {}
    for images in IMAGES:
        cold_seconds = build(output, warm, images)
        warm_seconds = build(output, warm, images)
        whole[images] = Bundle.load(output).manifest["digest"]
    outcome, present = Outcome(), IMAGES[-1]
    while outcome.killed < kills:
        images = IMAGES[1 - IMAGES.index(present)]
        empty, writing = cold and outcome.killed % 3 == 0, outcome.killed % 3 == 1
        cache = folder / "cold" if empty else warm
        process = subprocess.Popen(
            command(output, cache, images), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
        )
        if writing:
            while process.poll() is None and not any(output.parent.glob(".bundle.unfinished-*")):
                time.sleep(0.0005)
            time.sleep(chance.uniform(0.0, SECONDS_OF_WRITING))
        else:
            time.sleep(chance.uniform(0.0, 1.5 * (cold_seconds if empty else warm_seconds)))
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            outcome.killed += 1
            bundle = Bundle.load(output)
            bundle.verify()
            assert bundle.manifest["digest"] in whole.values()
            is_new = bundle.manifest["digest"] == whole[images]
            outcome.new += is_new
            outcome.old += not is_new
            present = images if is_new else present
        else:
            outcome.too_late += 1
            present = images
        shutil.rmtree(folder / "cold", ignore_errors=True)
    build(output, warm, IMAGES[0])
    Bundle.load(output).verify()
    left = [path.name for path in output.parent.iterdir()]
    assert left == [output.name], f"killed builds left {left}"
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        outcome = kill_builds(options.kills, options.seed, Path(folder))
    print(f"{outcome.killed} of {options.kills} kills survived: {outcome}")


if __name__ == "__main__":
    main()
