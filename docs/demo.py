"""The demo (`make demo`): build a bundle, find a face, compare the artifacts, write a report.

It prints each command and runs it.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from PIL import Image

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait, scenes
from retinaface_edge.cli.main import main

FOLDER = Path("build")
SCENES, SEED = 11, 1  # another seed than that of calibration, so that the scenes are new


def demo(folder: Path = FOLDER) -> int:
    """Write everything into `folder`: the bundle to `demo`, the photograph and the drawings beside it."""
    pictures, bundle = folder / "demo-pictures", folder / "demo"
    photograph, drifted, timed = pictures / "astronaut.png", folder / "demo-drift.json", folder / "demo-bench.json"
    pictures.mkdir(parents=True, exist_ok=True)
    Image.fromarray(portrait()[:, :, ::-1]).save(photograph)
    for index, scene in enumerate(scenes(SCENES, SEED)):
        Image.fromarray(scene[:, :, ::-1]).save(pictures / f"scene-{index:02}.png")
    commands = [
        ["build", "--output", str(bundle), "--force"],
        *(
            ["detect", str(bundle), str(photograph), "--backend", backend, "--draw", str(folder / f"demo-{backend}")]
            for backend in ("openvino", "tflite")
        ),
        ["verify", str(bundle)],
        ["drift", str(bundle), "--images", str(pictures), "--json", str(drifted)],
        ["bench", str(bundle), str(photograph), "--quick", "--json", str(timed)],
        [
            *("report", str(bundle), "--drift", str(drifted), "--bench", str(timed), "--images", str(pictures)),
            *("--output", str(folder / "demo-report.html")),
        ],
    ]
    for command in commands:
        print(f"\n$ retinaface-edge {shlex.join(command)}", flush=True)
        if code := main(command):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(demo())
