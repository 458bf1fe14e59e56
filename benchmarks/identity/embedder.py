"""A face recognition network: aligned crops in, unit vectors out, by ONNX Runtime on one thread.

Layout and size of the input are read from its shape. What a shape cannot tell, normalisation and colour order, is taken
as given: the default is that of the ArcFace family, RGB and (x − 127.5) / 128.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.errors import RetinaFaceEdgeError
from retinaface_edge.runtime.io.untrusted import read_file
from retinaface_edge.runtime.spec import Colour

MAX_BYTES = 1 << 29
"""The largest recognisers in use have 260 MB."""
LEAST_VALUES = 32
"""A vector of fewer numbers is no embedding: a classifier of faces, or key points."""
BATCH = 32


class EmbedderError(RetinaFaceEdgeError):
    """A file that is not a face recognition network, or one whose input has to be described."""


@dataclass(frozen=True)
class Preprocessing:
    """Input: (x − mean) / std in `colour`, in squares of `size` pixels; None is that of the input's shape."""

    mean: float = 127.5
    std: float = 128.0
    colour: Colour = Colour.RGB
    size: int | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.mean) and np.isfinite(self.std) and self.std > 0.0):
            raise EmbedderError(
                f"the recogniser's input is (x - {self.mean}) / {self.std}; the divisor must be above 0"
            )
        if self.size is not None and not 16 <= self.size <= 1024:
            raise EmbedderError(f"the recogniser's input of {self.size} pixels is not between 16 and 1024")


class Embedder:
    """A loaded recogniser.

    `size` is the side of its crops in pixels, `values` the length of its vectors, `digest` the SHA-256 of its file.
    """

    def __init__(self, name: str, content: bytes, preprocessing: Preprocessing | None = None) -> None:
        """Raises `EmbedderError` when the bytes are not a recogniser in ONNX, or its size has to be given."""
        self._preprocessing = preprocessing or Preprocessing()
        self._session = _session(name, content)
        self.digest = hashlib.sha256(content).hexdigest()
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise EmbedderError(
                f"{name} has {len(inputs)} inputs and {len(outputs)} outputs; a recogniser has one image and one vector"
            )
        self._input = inputs[0].name
        self._channels_first, self.size = _layout(name, inputs[0].shape, self._preprocessing.size)
        self._one_by_one = isinstance(inputs[0].shape[0], int)
        if inputs[0].type != "tensor(float)" or (self._one_by_one and inputs[0].shape[0] != 1):
            raise EmbedderError(f"{name} takes {inputs[0].type} of shape {inputs[0].shape}, not one image of floats")
        try:
            vector = self._run(np.zeros((1, self.size, self.size, 3), np.uint8))
        except Exception as error:  # ONNX Runtime's own kinds, for layers that do not fit each other
            raise EmbedderError(f"{name} cannot be run on an image; give a recogniser as ONNX") from error
        if vector.ndim != 2 or len(vector) != 1 or vector.shape[1] < LEAST_VALUES:
            raise EmbedderError(
                f"{name} gives an array of shape {vector.shape} per face; a recogniser gives one vector of "
                f"{LEAST_VALUES} numbers or more"
            )
        self.values = vector.shape[1]

    def __call__(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Embeddings (n, values) of length 1 for aligned BGR crops, uint8 (size, size, 3) each."""
        if not crops:
            return np.empty((0, self.values))
        step = 1 if self._one_by_one else BATCH
        stacked = np.stack(crops)
        vectors = np.concatenate([self._run(stacked[i : i + step]) for i in range(0, len(stacked), step)])
        return unit(vectors.astype(np.float64))

    def _run(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        ordered = crops[..., ::-1] if self._preprocessing.colour is Colour.RGB else crops
        blob = (ordered.astype(np.float32) - np.float32(self._preprocessing.mean)) / np.float32(self._preprocessing.std)
        if self._channels_first:
            blob = blob.transpose(0, 3, 1, 2)
        (result,) = self._session.run(None, {self._input: np.ascontiguousarray(blob)})
        return np.asarray(result)


def read_embedder(path: Path, preprocessing: Preprocessing | None = None) -> Embedder:
    """The recogniser in an ONNX file. Raises `EmbedderError` when it cannot be read or is none."""
    try:
        content = read_file(path, MAX_BYTES)
    except OSError as error:
        raise EmbedderError(
            f"{path} cannot be read ({error.strerror}); give a face recognition network as ONNX"
        ) from error
    return Embedder(str(path), content, preprocessing)


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows (n, values) brought to length 1; a row of zeros stays."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0.0, length, 1.0)


def _session(name: str, content: bytes) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise EmbedderError(
            f"--embedder needs {error.name}; run: pip install 'retinaface-edge[onnxruntime]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # its own kinds, for damaged and for unknown graphs
        raise EmbedderError(
            f"{name} is not an ONNX model that ONNX Runtime can run; give a recogniser as ONNX"
        ) from error


def _layout(name: str, shape: Sequence[object], size: int | None) -> tuple[bool, int]:
    """Whether channels come first, and the side of the square that the network takes."""
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise EmbedderError(
            f"{name} takes an array of shape {list(shape)}; a recogniser takes (N, 3, H, W) or (N, H, W, 3)"
        )
    channels_first = shape[1] == 3
    sides = shape[2:] if channels_first else shape[1:3]
    known = {side for side in sides if isinstance(side, int)}
    if len(known) > 1:
        raise EmbedderError(f"{name} takes images of {sides[1]}x{sides[0]}; aligned crops are squares")
    if not known and size is None:
        raise EmbedderError(f"{name} takes images of any size; say which it was trained on with --embedder-size")
    side = known.pop() if known else size
    assert side is not None
    if size not in (None, side):
        raise EmbedderError(f"{name} takes images of {side} pixels, not {size}; leave --embedder-size out")
    return channels_first, side
