"""The worst pictures of a drift result, drawn with both sets of boxes, as figures for the report."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.errors import ImageError
from retinaface_edge.runtime.io.images import read_image

from ..drift.result import DriftResult
from ..results import FaceRecord

LONGEST_SIDE = 720
QUALITY = 72


def worst_pictures(drift: DriftResult, folder: Path) -> Iterator[str]:
    """A figure for each of the result's worst pictures that is in `folder`; a sentence where one is not."""
    for worst in drift.worst_images:
        caption = f"{worst.image}: {worst.artifact} against {worst.reference}"
        frame = read_or_say(folder / worst.image, caption)
        if isinstance(frame, str):
            yield frame
            continue
        width = frame.shape[1]
        # Boxes are drawn by the page, not into the pixels: they stay sharp, and the picture stays small.
        boxes = [
            *_boxes(worst.reference_faces, "fp32", width, ""),
            *_boxes(worst.artifact_faces, "other", width, ' stroke-dasharray="6 4"'),
        ]
        yield figure(caption, frame, boxes)


def read_or_say(path: Path, caption: str) -> NDArray[np.uint8] | str:
    """The picture, uint8 BGR (h, w, 3), or the report's sentence on why the figure of that caption is not there."""
    try:
        return read_image(path)
    except ImageError as error:
        return f"<p>{escape(caption)}: not drawn, {escape(str(error))}</p>"


def figure(caption: str, frame: NDArray[np.uint8], marks: Iterable[str]) -> str:
    """A frame, uint8 BGR (h, w, 3), with SVG elements in its pixels drawn over it."""
    height, width = frame.shape[:2]
    return (
        f'<figure><figcaption>{escape(caption)}</figcaption><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(caption, quote=True)}"><image width="{width}" height="{height}" '
        f'href="{jpeg_href(frame)}"/>{"".join(marks)}</svg></figure>'
    )


def _boxes(faces: Sequence[FaceRecord], kind: str, width: int, dash: str) -> Iterator[str]:
    stroke = max(1.0, width / 360)
    for face in faces:
        x1, y1, x2, y2 = face.box
        yield (
            f'<rect x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}" class="{kind}" '
            f'stroke-width="{stroke:.1f}"{dash}><title>{face.score:.3f}</title></rect>'
        )


def jpeg_href(frame: NDArray[np.uint8]) -> str:
    """A frame, uint8 BGR (h, w, 3), as a data URL of a JPEG of at most 720 pixels a side."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(frame[:, :, ::-1]))
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
