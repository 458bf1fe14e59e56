"""ONNX Runtime, CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..postprocess import Grid, RawOutput
from ..spec import Spec
from . import Network, check_output


def load(spec: Spec, files: Sequence[bytes], threads: int) -> Network:
    """A session on `files[0]`, an ONNX model."""
    return _OnnxRuntime(spec, files[0], threads)


class _OnnxRuntime:
    def __init__(self, spec: Spec, model: bytes, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        shapes = {output.name: output.shape for output in self._session.get_outputs()}
        self._names = [output.name for output in spec.outputs]
        for index, name in enumerate(self._names):
            check_output(spec, index, shapes.get(name, ()))
        self.grids = (Grid(),) * len(self._names)

    def run(self, image: NDArray[np.uint8]) -> Sequence[RawOutput]:
        return self._session.run(self._names, {"image": image})  # type: ignore[no-any-return]
