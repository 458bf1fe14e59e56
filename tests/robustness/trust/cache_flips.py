"""Flip single bits in caches: what is read is what was put there, or nothing, or a refusal in one line.

    python tests/robustness/trust/cache_flips.py BUNDLE --flips 1000

Three caches, each for real. Blobs: a compiled OpenVINO model changes, and the detector is loaded and run. Stages: the
entries of a build change, and every twentieth time the build is run again. Rows: the database file changes, at any
place of it, and every value is read. A bundle, a face or a value that changed without a word is a silent change.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.benchmarks.inference.result_cache import FILE, ResultCache, Stored
from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.cli.main import main as run_command
from retinaface_edge.export import stage_cache
from retinaface_edge.runtime import Bundle, Detector
from retinaface_edge.runtime.backends.openvino_cache import CACHE
from retinaface_edge.runtime.io.sealed import STATE_VARIABLE

BUILDS = 50
"""One whole build for so many flips of stages."""


@dataclass
class Flips:
    """How many bits were flipped; how many were noticed, made no difference, or changed a result silently."""

    noticed: int = 0
    harmless: int = 0
    silent: int = 0


def flipped(path: Path, chance: random.Random) -> bytes:
    """Flip one bit of a file; gives what it held before."""
    before = path.read_bytes()
    changed = bytearray(before)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    path.write_bytes(changed)
    return before


def blobs(bundle: Bundle, folder: Path, count: int, chance: random.Random) -> Flips:
    """Flips in a compiled model, which OpenVINO would run."""
    os.environ[CACHE] = str(folder / "blobs")
    found, picture = Flips(), portrait()
    expected = Detector.load(bundle, "openvino", "int8").detect(picture)
    (blob,) = (folder / "blobs").iterdir()
    for _ in range(count):
        flipped(blob, chance)
        changed = blob.read_bytes()
        faces = Detector.load(bundle, "openvino", "int8").detect(picture)
        same = np.array_equal(faces.boxes, expected.boxes) and np.array_equal(faces.scores, expected.scores)
        found.silent += not same
        found.noticed += same and blob.read_bytes() != changed  # it was compiled and kept again
        found.harmless += same and blob.read_bytes() == changed
    return found


def stages(folder: Path, count: int, chance: random.Random, builds: int = BUILDS) -> Flips:
    """Flips in the stages of a small build."""
    cache, found = folder / "stages", Flips()

    def build(name: str) -> str:
        command = ["build", "--images", "2", "--size", "160x128", "--recipe", "fast", "--cache", str(cache), "--quiet"]
        assert run_command([*command, "--output", str(folder / name), "--force"]) == 0
        return str(Bundle.load(folder / name).manifest["digest"])

    expected = build("bundle")
    entries = {path.name: stage_cache.read_entry(cache, path.name) for path in cache.iterdir()}
    assert all(entries.values())
    for number in range(count):
        key = chance.choice(sorted(entries))
        path = chance.choice(sorted(file for file in (cache / key).iterdir() if file.stat().st_size))
        before = flipped(path, chance)
        if number % builds == 0:
            same = build(f"again{number}") == expected
        else:
            read = stage_cache.read_entry(cache, key)
            same = read is None or read == entries[key]
        found.silent += not same
        found.noticed += same
        path.write_bytes(before)
    return found


def rows(folder: Path, count: int, chance: random.Random) -> Flips:
    """Flips anywhere in the database of results."""
    values = {f"{index:064}": Stored((640, 480), {"a": np.full(40, index), "b": np.zeros(3)}) for index in range(20)}
    with ResultCache(folder) as cache:
        cache.put(values)
    found, path = Flips(), folder / FILE
    for _ in range(count):
        before = flipped(path, chance)
        wrong, missing = 0, 0
        try:
            with ResultCache(folder) as cache:
                for key, value in values.items():
                    read = cache.get(key)
                    missing += read is None
                    wrong += read is not None and not _same(read, value)
        except MeasurementError:
            missing += 1
        for left in folder.glob(f"{FILE}-*"):
            left.unlink()
        path.write_bytes(before)
        found.silent += wrong > 0
        found.noticed += missing > 0 and not wrong
        found.harmless += not missing and not wrong
    return found


def _same(read: Stored, value: Stored) -> bool:
    arrays = all(np.array_equal(read.arrays[name], array) for name, array in value.arrays.items())
    return read.size == value.size and set(read.arrays) == set(value.arrays) and arrays


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--of", choices=("all", "blobs", "stages", "rows"), default="all")
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    silent, kinds = 0, ("blobs", "stages", "rows") if options.of == "all" else (options.of,)
    for kind in kinds:
        with tempfile.TemporaryDirectory(prefix="flips-") as name:
            folder, chance = Path(name), random.Random(f"{kind} {options.seed}")
            os.environ[STATE_VARIABLE] = str(folder / "state")
            if kind == "blobs":
                found = blobs(Bundle.load(options.bundle), folder, options.flips, chance)
            else:
                found = (stages if kind == "stages" else rows)(folder, options.flips, chance)
        silent += found.silent
        print(f"{kind}: {options.flips} flips, {found}", flush=True)
    return 1 if silent else 0


if __name__ == "__main__":
    raise SystemExit(main())
