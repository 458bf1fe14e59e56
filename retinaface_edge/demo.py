"""The demo, `python -m retinaface_edge.demo`: build a bundle, find a face, compare the artifacts.

It runs the same commands that a user would, and shows each.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from PIL import Image

from .calibration.scenes import portrait
from .cli import main

FOLDER = Path("build")


def demo(folder: Path = FOLDER) -> int:
    """Everything under `folder`: the bundle in `demo`, the photograph and the drawings beside it."""
    photograph, bundle = folder / "demo-pictures" / "astronaut.png", folder / "demo"
    photograph.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(portrait()[:, :, ::-1]).save(photograph)
    commands = [
        ["build", "--output", str(bundle), "--force"],
        *(
            ["detect", str(bundle), str(photograph), "--backend", backend, "--draw", str(folder / f"demo-{backend}")]
            for backend in ("openvino", "tflite")
        ),
        ["verify", str(bundle)],
        ["bench", str(bundle), str(photograph), "--quick"],
    ]
    for command in commands:
        print(f"\n$ retinaface-edge {shlex.join(command)}", flush=True)
        if code := main(command):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(demo())
