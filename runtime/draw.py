"""Faces drawn onto a frame: boxes, scores and landmarks. Needs Pillow, imported only here."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import ImageError
from .io.atomic import write_atomic
from .mesh.topology import topology
from .ops.postprocess import Faces

BOX = (0, 230, 118)
WIRE = (120, 255, 220)
LANDMARKS = ((255, 82, 82), (255, 82, 82), (255, 214, 0), (64, 156, 255), (64, 156, 255))


def draw_faces(frame: NDArray[np.uint8], faces: Faces, path: Path) -> None:
    """Write `frame` (uint8 BGR, (h, w, 3)) with its faces to `path`, atomically; its suffix names the
    format, PNG if it names none.

    Where faces have vertices, their wireframe is drawn instead of the landmarks.

    Raises `ImageError` when the file cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(np.ascontiguousarray(frame[:, :, ::-1]))
    pen = ImageDraw.Draw(picture)
    line = max(1, round(max(frame.shape[:2]) / 320))
    font = ImageFont.load_default(size=10 + 2 * line)
    for face in faces:
        x1, y1, x2, y2 = face.box
        pen.rectangle((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), outline=BOX, width=line)
        if face.vertices is None:
            radius = max(line, (x2 - x1) / 40)
            for (x, y), colour in zip(face.landmarks, LANDMARKS, strict=True):
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        else:
            points = [(x, y) for x, y, _ in face.vertices.tolist()]
            for start, end in topology().edges.tolist():
                pen.line((*points[start], *points[end]), fill=WIRE)
        label = f"{face.score:.2f}"
        left, top, right, bottom = pen.textbbox((x1, y1), label, font=font, anchor="lb")
        pen.rectangle((left - line, top - line, right + line, bottom + line), fill=BOX)
        pen.text((x1, y1), label, fill=(0, 0, 0), font=font, anchor="lb")
    content = io.BytesIO()
    try:
        picture.save(content, Image.registered_extensions().get(path.suffix.lower(), "PNG"))
        write_atomic(path, content.getvalue())
    except OSError as error:
        raise ImageError(f"{path} cannot be written ({error.strerror or error})") from error
