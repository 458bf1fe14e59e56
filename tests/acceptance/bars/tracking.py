"""The bar of tracking: ids switched on rendered videos of five crossing faces, 300 frames each.

    python tests/acceptance/bars/tracking.py BUNDLE [--seeds 20]

The tracker was made on the video of `tests/runtime/test_tracking.py`; the seeds here were not seen while it was made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from crossing_faces import Paths, crossing_video, random_paths, switches

from retinaface_edge.runtime import Detector
from retinaface_edge.runtime.tracking import Tracker

MOST_SWITCHES = 2
FIRST_SEED = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the switches of every seed; 0 when each is within the bar, 1 when one is not."""
    parser = argparse.ArgumentParser(description="Count switched ids.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=FIRST_SEED)
    options = parser.parse_args(arguments)
    counts = []
    with Detector.load(options.bundle, "openvino", "int8") as detector:
        for seed in range(options.first, options.first + options.seeds):
            count, hidden = switched(detector, random_paths(seed))
            counts.append(count)
            print(f"seed {seed}: {count} switches; a face is hidden in {hidden} of 300 frames", flush=True)
    print(f"{sum(counts)} switches in {len(counts)} videos, at most {max(counts)} in one; bar: {MOST_SWITCHES}")
    return 0 if max(counts) <= MOST_SWITCHES else 1


def switched(detector: Detector, paths: Paths) -> tuple[int, int]:
    """The switches in one video, and in how many frames a face is more than half hidden."""
    tracker, truth, found, hidden = Tracker(), [], [], 0
    for frame, boxes, seen in crossing_video(paths):
        faces = detector.detect(frame)
        hidden += int((seen < 0.5).any())
        truth.append(np.where(seen[:, None] < 0.5, np.nan, boxes))
        found.append((faces, tracker.update(faces)))
    return switches(truth, found), hidden


if __name__ == "__main__":
    sys.exit(main())
