"""The bar of public checkpoints: each is built and finds the faces of twenty photographs, or is refused in one line.

    python tests/acceptance/bars/public_files.py ../shared/data

For each file of `checkpoints`: the line that refuses it, or for each artifact how many of the faces of the first twenty
photographs of `fddb` are found. `--pictures 300` gives the whole set.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from retinaface_edge.benchmarks.accuracy.average_precision import ImageDetections, average_precision
from retinaface_edge.benchmarks.accuracy.datasets import Annotated, read_boxes
from retinaface_edge.calibration.dataset.image_set import image_folder
from retinaface_edge.calibration.recipe import read_recipe
from retinaface_edge.export.build import BuildRequest, build
from retinaface_edge.export.checkpoints.interpretation import IMAGENET, SMALL, Overrides
from retinaface_edge.export.checkpoints.source import checkpoint_file
from retinaface_edge.export.stage_cache import default_folder
from retinaface_edge.runtime import Bundle, Detector
from retinaface_edge.runtime.errors import RetinaFaceEdgeError
from retinaface_edge.runtime.io.images import read_image
from retinaface_edge.runtime.ops.iou import iou

SETTINGS = {
    "one_mb_mobilenet0.25_small_anchors.pth": Overrides(SMALL),
    "conv_n_names.onnx": Overrides(mean=IMAGENET.mean, std=IMAGENET.std, colour=IMAGENET.colour),
}
"""What the self-check suggests for a file that does not tell its settings."""
REFUSED = "already_quantised.pth"
SIZE, CALIBRATION, PICTURES = (640, 480), 24, 20
FOUND, LOWEST, LEAST_SHARE = 0.5, 0.02, 0.95
"""IoU and score from which a face is found, and the share of faces that must be."""


def found_faces(bundle: Bundle, pictures: Sequence[Annotated]) -> Iterator[tuple[str, int, int, float]]:
    """Of each artifact its name, the labelled faces and how many of them it finds, and the average precision."""
    frames = [read_image(picture.path) for picture in pictures]
    for artifact in bundle.artifacts:
        images = []
        with Detector.load(bundle, artifact.backend, artifact.precision) as detector:
            for frame, picture in zip(frames, pictures, strict=True):
                faces = detector.detect(frame, LOWEST)
                counted = np.ones(len(picture.faces), np.bool_)
                images.append(ImageDetections(faces.scores, faces.boxes, picture.faces, counted))
        yield artifact.name, sum(len(image.faces) for image in images), _matched(images), average_precision(images)


def _matched(images: Sequence[ImageDetections]) -> int:
    """Labelled faces on which a box of score 0.5 and more lies."""
    hits = [iou(image.faces, image.boxes[image.scores >= 0.5]) >= FOUND for image in images]
    return int(sum(hit.any(axis=1).sum() for hit in hits))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 when a file misses the bar."""
    parser = argparse.ArgumentParser(description="Build every public checkpoint and find faces with it.")
    parser.add_argument("data", type=Path, help="folder with checkpoints, fddb and calibration")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="default: %(default)s")
    parser.add_argument("--cache", type=Path, default=default_folder(), metavar="DIR")
    options = parser.parse_args(arguments)
    pictures = read_boxes(options.data / "fddb" / "boxes.json").pictures[: options.pictures]
    images, recipe = image_folder(options.data / "calibration", CALIBRATION), read_recipe("balanced")
    met = True
    print(f"{'file':40} {'artifact':18} {'faces':>6} {'found':>6} {'AP':>7}")
    for file in sorted(path for path in (options.data / "checkpoints").iterdir() if path.suffix != ".json"):
        with tempfile.TemporaryDirectory() as folder:
            source = checkpoint_file(file, SETTINGS.get(file.name))
            request = BuildRequest(source, SIZE, images, recipe, Path(folder) / "bundle", cache=options.cache)
            try:
                bundle = build(request)
            except RetinaFaceEdgeError as error:
                print(f"{file.name:40} refused: {str(error).replace(str(file), file.name)}")
                met &= file.name == REFUSED and "\n" not in str(error)
                continue
            for name, faces, found, precision in found_faces(bundle, pictures):
                print(f"{file.name:40} {name:18} {faces:6d} {found:6d} {precision:7.4f}", flush=True)
                met &= found >= LEAST_SHARE * faces
    print(f"bar: {'met' if met else 'NOT MET'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
