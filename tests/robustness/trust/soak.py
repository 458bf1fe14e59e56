"""Detect in a hundred thousand frames from four threads at once, then load ten thousand times, and look for leaks.

    python tests/robustness/trust/soak.py BUNDLE --frames 100000 --loads 10000 [--backend tflite]

The threads share one detector and a few scenes; every result is compared with the first of its scene. No frame for a
minute is a deadlock. A load reads the bundle, makes a detector and closes it; every tenth looks at a scene, and has no
compiled model in OpenVINO's cache. Resident memory, descriptors and threads of the process are counted after a warm-up
of a tenth and at the end.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait, scenes
from retinaface_edge.runtime import Bundle, Detector
from retinaface_edge.runtime.backends import BACKENDS
from retinaface_edge.runtime.backends.openvino_cache import CACHE
from retinaface_edge.runtime.ops.faces import Faces

THREADS = 4
SCENES = 5
LEAST_WARM_UP = 200
MOST_GROWTH = 2 << 20
LOADS_THAT_LOOK = 10
SECONDS_OF_DEADLOCK = 60.0


@dataclass(frozen=True)
class Held:
    """What the process holds: bytes of resident memory, open descriptors, threads."""

    memory: int
    descriptors: int
    threads: int

    def __sub__(self, other: Held) -> Held:
        differences = (self.memory - other.memory, self.descriptors - other.descriptors, self.threads - other.threads)
        return Held(*differences)


@dataclass(frozen=True)
class Soak:
    """What a soak found in `count` frames or loads: `changed` results, threads that hung, and by how much what the
    process holds `grew` after the warm-up."""

    what: str
    backend: str
    precision: str
    count: int
    seconds: float
    faces: int
    changed: int
    hung: int
    grew: Held

    @property
    def good(self) -> bool:
        leaks = self.grew.memory > MOST_GROWTH or self.grew.descriptors > 0 or self.grew.threads > 0
        return not (self.changed or self.hung or leaks)


def held() -> Held:
    """What this process holds now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    counts = (len(os.listdir(f"/proc/self/{kind}")) for kind in ("fd", "task"))
    return Held(pages * os.sysconf("SC_PAGE_SIZE"), *counts)


def soak(folder: Path, backend: str, precision: str, frames: int) -> Soak:
    """Detect in that many frames from four threads that share a detector."""
    detector = Detector.load(folder, backend, precision)
    pictures = [portrait(), *scenes(SCENES - 1, seed=9)]
    expected = [detector.detect(picture) for picture in pictures]
    changed, done = [0] * THREADS, [0] * THREADS

    def work(thread: int, count: int) -> None:
        for index in range(count):
            scene = (thread + index) % SCENES
            changed[thread] += not same(detector.detect(pictures[scene]), expected[scene])
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
    before = held()
    hung = hung or together(frames // THREADS - warm_up)
    grew, seconds, faces = held() - before, round(time.monotonic() - begin, 1), sum(map(len, expected))
    return Soak("frames", backend, precision, sum(done), seconds, faces, sum(changed), hung, grew)


def load(folder: Path, backend: str, precision: str, loads: int) -> Soak:
    """Load the bundle in `folder` and let go of it, that many times."""
    picture, begin, changed = portrait(), time.monotonic(), 0
    with tempfile.TemporaryDirectory() as name, patch.dict(os.environ, {CACHE: f"{name}/blobs"}):
        with Detector.load(folder, backend, precision) as detector:
            expected = detector.detect(picture)
        before = held()
        for index in range(loads):
            if index == loads // 10:
                before = held()
            looks = index % LOADS_THAT_LOOK == 0
            if looks:
                shutil.rmtree(f"{name}/blobs", ignore_errors=True)
            with Detector.load(folder, backend, precision) as detector:
                changed += looks and not same(detector.detect(picture), expected)
        grew, seconds = held() - before, round(time.monotonic() - begin, 1)
    return Soak("loads", backend, precision, loads, seconds, len(expected), changed, 0, grew)


def same(found: Faces, expected: Faces) -> bool:
    """Whether they are the same to the bit."""
    pairs = ((getattr(found, name), getattr(expected, name)) for name in ("scores", "boxes", "landmarks"))
    return all(np.array_equal(ours, theirs) for ours, theirs in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--loads", type=int, default=10_000)
    parser.add_argument("--backend", choices=BACKENDS, action="append")
    parser.add_argument("--precision", default="int8")
    options = parser.parse_args()
    bundle, good = Bundle.load(options.bundle), True
    for backend in options.backend or BACKENDS:
        for run, count in ((soak, options.frames), (load, options.loads)):
            if count:
                result = run(bundle.path, backend, options.precision, count)
                print(json.dumps(asdict(result)), flush=True)
                good = good and result.good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
