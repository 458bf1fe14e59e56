"""Detect in a hundred thousand frames from four threads at once, and look for leaks, drift and deadlocks.

    python tests/robustness/trust/soak.py BUNDLE --frames 100000 [--backend tflite]

The threads share one detector and a few scenes; every result is compared with the first of its scene. The resident
memory of the process is read after a warm-up of a tenth of the frames and at the end. No frame for a minute is a
deadlock.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait, scenes
from retinaface_edge.runtime import Bundle, Detector
from retinaface_edge.runtime.backends import BACKENDS

THREADS = 4
SCENES = 5
LEAST_WARM_UP = 200
MOST_GROWTH = 2 << 20
SECONDS_OF_DEADLOCK = 60.0


@dataclass(frozen=True)
class Soak:
    """What a soak found: `changed` results, `growth` of memory in bytes after the warm-up, threads that hung."""

    backend: str
    precision: str
    frames: int
    seconds: float
    faces: int
    changed: int
    growth: int
    hung: int

    @property
    def good(self) -> bool:
        return not self.changed and not self.hung and self.growth <= MOST_GROWTH


def resident() -> int:
    """Bytes of memory that this process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def soak(bundle: Bundle, backend: str, precision: str, frames: int) -> Soak:
    """Detect in that many frames from four threads that share a detector."""
    detector = Detector.load(bundle, backend, precision)
    pictures = [portrait(), *scenes(SCENES - 1, seed=9)]
    expected = [detector.detect(picture) for picture in pictures]
    changed, done = [0] * THREADS, [0] * THREADS

    def work(thread: int, count: int) -> None:
        for index in range(count):
            scene = (thread + index) % SCENES
            found, known = detector.detect(pictures[scene]), expected[scene]
            same = all(
                np.array_equal(ours, theirs)
                for ours, theirs in (
                    (found.scores, known.scores),
                    (found.boxes, known.boxes),
                    (found.landmarks, known.landmarks),
                )
            )
            changed[thread] += not same
            done[thread] += 1

    def together(count: int) -> int:
        threads = [threading.Thread(target=work, args=(i, count), daemon=True) for i in range(THREADS)]
        for thread in threads:
            thread.start()
        seen, since = -1, time.monotonic()
        while any(thread.is_alive() for thread in threads):
            next(thread for thread in threads if thread.is_alive() or thread is threads[-1]).join(0.2)
            if sum(done) != seen:
                seen, since = sum(done), time.monotonic()
            elif time.monotonic() - since > SECONDS_OF_DEADLOCK:
                break
        return sum(thread.is_alive() for thread in threads)

    begin = time.monotonic()
    warm_up = min(max(frames // 10, LEAST_WARM_UP), frames // 2) // THREADS
    hung = together(warm_up)
    before = resident()
    hung = hung or together(frames // THREADS - warm_up)
    return Soak(
        backend,
        precision,
        sum(done),
        round(time.monotonic() - begin, 1),
        sum(map(len, expected)),
        sum(changed),
        resident() - before,
        hung,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--backend", choices=BACKENDS, action="append")
    parser.add_argument("--precision", default="int8")
    options = parser.parse_args()
    bundle, good = Bundle.load(options.bundle), True
    for backend in options.backend or BACKENDS:
        result = soak(bundle, backend, options.precision, options.frames)
        print(json.dumps(asdict(result)), flush=True)
        good = good and result.good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
