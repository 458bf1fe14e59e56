"""Embeddings of aligned face crops, computed in the process that measures the picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.errors import ImageError
from retinaface_edge.runtime.io.atomic import write_atomic
from retinaface_edge.runtime.ops.align import TEMPLATE, aligned
from retinaface_edge.runtime.ops.faces import Face, Faces
from retinaface_edge.runtime.spec import Spec

from ..errors import MeasurementError
from ..inference.network_under_test import digest_of
from ..inference.open_picture import OpenPicture, resident
from .embedder import Embedder, Preprocessing, read_embedder
from .result import EmbedderRecord


@dataclass(frozen=True)
class Recogniser:
    """A recogniser by its bytes. It can be sent to another process or machine, and loads itself there."""

    name: str
    content: bytes
    preprocessing: Preprocessing
    record: EmbedderRecord

    @property
    def key(self) -> str:
        """A digest of all that decides its embeddings."""
        return digest_of(self.record.digest, repr(self.preprocessing))

    def embed(self, crops: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Embeddings (n, values) of length 1 of aligned crops."""
        embedder = resident(f"embedder {self.key}", lambda: Embedder(self.name, self.content, self.preprocessing))
        return embedder(crops)


def read_recogniser(path: Path, preprocessing: Preprocessing, assumed: bool = True) -> Recogniser:
    """The recogniser in an ONNX file, tried once; `assumed` is whether nobody described its input.

    Raises `EmbedderError` when it is none.
    """
    embedder = read_embedder(path, preprocessing)
    record = EmbedderRecord(
        path.name,
        embedder.digest,
        embedder.size,
        preprocessing.mean,
        preprocessing.std,
        preprocessing.colour,
        assumed,
    )
    return Recogniser(path.name, path.read_bytes(), preprocessing, record)


def check_landmarks(spec: Spec) -> None:
    """Raises `MeasurementError` when the detector gives other landmarks than those that faces are aligned by."""
    if spec.landmarks != len(TEMPLATE):
        raise MeasurementError(
            f"faces are aligned for a recogniser by {len(TEMPLATE)} landmarks, and this detector gives {spec.landmarks}"
        )


def embeddings_of(
    picture: OpenPicture, recogniser: Recogniser, faces: Faces, mirrored: bool = False
) -> NDArray[np.float64]:
    """Embeddings (n, values) of the aligned crops of n faces, or of these mirrored; zeros for a face without a crop."""
    crops = [crop_of(picture.frame, face, recogniser.record.size_px) for face in faces]
    there = [index for index, crop in enumerate(crops) if crop is not None]
    vectors = recogniser.embed([crop[:, ::-1] if mirrored else crop for crop in crops if crop is not None])
    embeddings = np.zeros((len(crops), vectors.shape[1]))
    embeddings[there] = vectors
    return embeddings


def crop_of(frame: NDArray[np.uint8], face: Face, size: int) -> NDArray[np.uint8] | None:
    """The aligned crop, uint8 BGR (size, size, 3); None for a face whose landmarks are all at one point."""
    try:
        return aligned(frame, face, size)
    except ImageError:
        return None


def rows_of(faces: Faces, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Faces:
    """Those of the faces that `rows` picks, as it would pick rows of an array."""
    return Faces(faces.scores[rows], faces.boxes[rows], faces.landmarks[rows])


def write_embeddings(path: Path, embeddings: Mapping[str, NDArray[np.float64]]) -> None:
    """Write arrays by name as an .npz file, atomically."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **embeddings)
    write_atomic(path, buffer.getvalue())
