"""The bar of the one-megabyte MobileNet: with its own anchors it finds the faces of FDDB."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retinaface_edge.benchmarks.accuracy.average_precision import ImageDetections, average_precision
from retinaface_edge.benchmarks.accuracy.datasets import read_boxes
from retinaface_edge.export.checkpoints.interpretation import SMALL
from retinaface_edge.export.checkpoints.source import Overrides, read_checkpoint
from retinaface_edge.export.graph.opset import DEFAULT_OPSET
from retinaface_edge.runtime import Detector, backends
from retinaface_edge.runtime.io.images import read_image

LEAST_PRECISION = 0.95


def test_the_one_megabyte_mobilenet_finds_the_faces_of_fddb(shared: Path) -> None:
    file = shared / "checkpoints" / "one_mb_mobilenet0.25_small_anchors.pth"
    checkpoint = read_checkpoint(file, Overrides(SMALL))
    spec = checkpoint.spec(640, 480)
    model = checkpoint.graph(spec, DEFAULT_OPSET).SerializeToString()
    found = []
    with Detector(spec, backends.load("onnxruntime", spec, [model], 1)) as detector:
        for picture in read_boxes(shared / "fddb" / "boxes.json").pictures:
            faces = detector.detect(read_image(picture.path), 0.02)
            counted = np.ones(len(picture.faces), np.bool_)
            found.append(ImageDetections(faces.scores, faces.boxes, picture.faces, counted))
    assert average_precision(found) >= LEAST_PRECISION
