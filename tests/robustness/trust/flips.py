"""Flip bytes everywhere in a bundle: `verify` and `load` must refuse each, before a backend is called.

    python tests/robustness/trust/flips.py BUNDLE --flips 10000

Every file has the same number of flips, spread evenly over its length, so that no region is left out.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from retinaface_edge.runtime import Bundle, BundleError, Detector
from retinaface_edge.runtime.bundle.bundle import MANIFEST


@dataclass
class Refusals:
    """How many bytes were flipped, how many of the bundles `verify` refused, and how many `load` refused."""

    flips: int = 0
    by_verify: int = 0
    by_load: int = 0
    """Of an artifact that has the file; a file that belongs to none is not loaded, and counts as refused by verify."""


def places(bundle: Bundle, count: int, chance: random.Random) -> Iterator[tuple[str, int]]:
    """`count` paths with offsets, the manifest's among them."""
    paths = [MANIFEST, *(file.path for file in bundle.files)]
    for index in range(count):
        path = paths[index % len(paths)]
        size = (bundle.path / path).stat().st_size
        regions = -(-count // len(paths))
        region = index // len(paths)
        low, high = size * region // regions, max(size * (region + 1) // regions, size * region // regions + 1)
        yield path, min(chance.randrange(low, high), size - 1)


def flip_bytes(bundle: Bundle, count: int, seed: int) -> Refusals:
    """Flip that many bytes of `bundle`, one at a time, and put each back. Raises when a backend is called."""
    chance, refusals = random.Random(seed), Refusals()
    owners = {file.path: artifact for artifact in bundle.artifacts for file in artifact.files}
    with patch("retinaface_edge.runtime.backends.load", side_effect=AssertionError("a backend was called")):
        for path, offset in places(bundle, count, chance):
            artifact = owners.get(path, bundle.artifacts[0])
            with open(bundle.path / path, "r+b") as file:
                file.seek(offset)
                byte = file.read(1)[0]
                file.seek(offset)
                file.write(bytes([byte ^ chance.randrange(1, 256)]))
            refusals.flips += 1
            try:
                Bundle.load(bundle.path).verify()
            except BundleError:
                refusals.by_verify += 1
            if path in owners or path == MANIFEST:
                try:
                    Detector.load(bundle.path, artifact.backend, artifact.precision)
                except BundleError:
                    refusals.by_load += 1
            else:
                refusals.by_load += 1
            with open(bundle.path / path, "r+b") as file:
                file.seek(offset)
                file.write(bytes([byte]))
    return refusals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(options.bundle, Path(folder) / "bundle")
        bundle = Bundle.load(Path(folder) / "bundle")
        refusals = flip_bytes(bundle, options.flips, options.seed)
        bundle.verify()
    print(f"verify refused {refusals.by_verify} of {refusals.flips}, load {refusals.by_load} of {refusals.flips}")


if __name__ == "__main__":
    main()
