"""Crops for the report: a face as FP32 aligns it beside the same as an artifact does, least similar first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from retinaface_edge.runtime.ops.faces import Face

from ..identity.crops import crop_of
from ..identity.result import IdentityFloor
from ..results import FaceRecord
from .worst_images import figure, read_or_say


def identity_pictures(floor: IdentityFloor, folder: Path) -> Iterator[str]:
    """A figure for each of the worst faces whose picture is in `folder`; a sentence where one is not."""
    size = floor.embedder.size_px
    for row in floor.comparisons:
        for worst in row.worst if not row.artifact.endswith("fp32") else ():
            caption = f"{row.reference} | {row.artifact}, cosine {worst.cosine:.3f}: {worst.image}"
            frame = read_or_say(folder / worst.image, caption)
            if isinstance(frame, str):
                yield frame
                continue
            crops = [crop_of(frame, _face(record), size) for record in (worst.reference, worst.artifact)]
            shown = [np.zeros((size, size, 3), np.uint8) if crop is None else crop for crop in crops]
            yield figure(caption, np.concatenate(shown, axis=1), ())


def _face(record: FaceRecord) -> Face:
    return Face(record.score, record.box, record.landmarks)
