"""What runs a network: one small file a backend, behind a table, imported only when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from ..postprocess import Grid, RawOutput
from ..spec import Spec

MODULES = {"openvino": "openvino", "tflite": "tflite", "onnxruntime": "onnxruntime"}
EXTRAS = {"openvino": "openvino", "tflite": "tflite", "onnxruntime": "onnxruntime"}


class Network(Protocol):
    """A loaded artifact. Not safe to call from two threads at once; `Detector` takes care of that."""

    grids: tuple[Grid, ...]
    """How each output is quantised, in the order of `spec.outputs`."""

    def run(self, image: NDArray[np.uint8]) -> Sequence[RawOutput]:
        """Raw outputs for `image`, uint8 (1, H, W, 3), in the order of `spec.outputs`.

        The arrays may be views of the backend's own buffers: valid until the next call.
        """
        ...


def load(backend: str, spec: Spec, files: Sequence[bytes], threads: int) -> Network:
    """Load an artifact's files (the model first) with `threads` threads.

    Raises `BackendError` when the backend is unknown or not installed, or when the model breaks the contract.
    """
    if backend not in MODULES:
        raise BackendError(f"there is no backend {backend!r}; choose one of: {', '.join(MODULES)}")
    module = importlib.import_module(f".{MODULES[backend]}", __name__)
    try:
        network: Network = module.load(spec, files, threads)
    except ImportError as error:
        raise BackendError(
            f"the backend {backend} is not installed; run: pip install 'retinaface-edge[{EXTRAS[backend]}]'"
        ) from error
    return network


def check_output(spec: Spec, index: int, shape: Sequence[int]) -> None:
    """Raise `BackendError` unless output `index` of a model has the shape that the contract gives it."""
    expected = spec.outputs[index]
    if tuple(shape) != expected.shape:
        raise BackendError(
            f"output {expected.name} of the model has shape {tuple(shape)}, the contract says {expected.shape}; "
            "build the bundle again"
        )
