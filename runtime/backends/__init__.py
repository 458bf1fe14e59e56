"""Backends, which run a network: one small file each, in a table, imported only when used."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from ..contract import Contract
from ..errors import BackendError
from ..ops.quantization import QuantParams, RawOutput

BACKENDS = {
    "openvino": ("openvino",),
    "tflite": ("ai_edge_litert", "tflite_runtime"),
    "onnxruntime": ("onnxruntime",),
}
"""Each backend has a module and an extra of its name, and these packages run it: the first that is there."""


class Network(Protocol):
    """A loaded artifact. Not safe to call from two threads at once; `Detector` takes care of that."""

    quant_params: tuple[QuantParams, ...]
    """How each output is quantised, in the order of `spec.outputs`."""

    def run(self, image: NDArray[Any]) -> Sequence[RawOutput]:
        """Raw outputs for `image`, of shape `spec.input_shape`, in the order of `spec.outputs`.

        The arrays may be views of the backend's own buffers: valid until the next call.
        """
        ...


def load(backend: str, spec: Contract, files: Sequence[bytes], threads: int) -> Network:
    """Load an artifact's files (the model first) with `threads` threads.

    Raises `BackendError` when the backend is unknown or not installed, `threads` is below 1, or the model breaks the
    contract.
    """
    if threads < 1:
        raise BackendError(f"threads must be at least 1, not {threads}")
    if backend not in BACKENDS:
        raise BackendError(f"there is no backend {backend!r}; choose one of: {', '.join(BACKENDS)}")
    if backend not in installed():
        raise BackendError(f"the backend {backend} is not installed; run: pip install 'retinaface-edge[{backend}]'")
    network: Network = importlib.import_module(f".{backend}", __name__).load(spec, files, threads)
    return network


def installed() -> list[str]:
    """The backends that can be loaded here, in the order in which they are preferred."""
    return [name for name, packages in BACKENDS.items() if any(map(importlib.util.find_spec, packages))]


def check_output(spec: Contract, index: int, shape: Sequence[int]) -> None:
    """Raise `BackendError` unless output `index` of a model has the shape that the contract gives it."""
    expected = spec.outputs[index]
    found = tuple(int(side) for side in shape)  # some backends give NumPy's integers
    if found != expected.shape:
        raise BackendError(
            f"output {expected.name} of the model has shape {found}, the contract says {expected.shape}; "
            "build the bundle again"
        )
