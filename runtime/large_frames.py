"""Faces in frames that are much larger than the network's input."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .detector import DEFAULT_BOUNDS, Detector
from .ops.faces import Faces
from .ops.letterbox import check_frame
from .ops.postprocess import Bounds
from .ops.tiles import IOU_THRESHOLD, cut, in_frame, merge, pyramid, uncut_faces


def detect_in_tiles(
    detector: Detector,
    frame: NDArray[np.uint8],
    score_threshold: float = 0.5,
    iou_threshold: float = IOU_THRESHOLD,
    mesh: bool = False,
    bounds: Bounds = DEFAULT_BOUNDS,
) -> Faces:
    """The faces of one frame, found in overlapping tiles and merged; in pixels of that frame, best first.

    Tiles have the size of the network's input, so that faces keep their pixels; larger ones follow, each level twice as
    large, up to the whole frame. A face that an inner edge cuts is left to the tile that has it whole. Frame, arguments
    and errors are those of `Detector.detect`, and `bounds` those of one tile.
    """
    pixels = check_frame(frame)
    height, width = pixels.shape[:2]
    found = []
    for tile in pyramid(width, height, detector.spec.width, detector.spec.height):
        part = cut(pixels, tile, detector.spec.padding_colour)
        faces = detector.detect(part, score_threshold, iou_threshold, mesh=mesh, bounds=bounds)
        found.append(in_frame(uncut_faces(faces, tile, width, height), tile))
    return merge(found, iou_threshold=iou_threshold)
