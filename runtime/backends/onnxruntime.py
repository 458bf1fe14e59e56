"""ONNX Runtime, CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from ..contract import Contract
from ..ops.quantization import QuantParams, RawOutput
from . import Network, check_output


def load(spec: Contract, files: Sequence[bytes], threads: int) -> Network:
    """A session on `files[0]`, an ONNX model."""
    return _OnnxRuntime(spec, files[0], threads)


class _OnnxRuntime:
    def __init__(self, spec: Contract, model: bytes, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        shapes = {output.name: output.shape for output in self._session.get_outputs()}
        self._input = spec.input_name
        self._names = [output.name for output in spec.outputs]
        for index, name in enumerate(self._names):
            check_output(spec, index, shapes.get(name, ()))
        self.quant_params = (QuantParams(),) * len(self._names)

    def run(self, image: NDArray[Any]) -> Sequence[RawOutput]:
        return self._session.run(self._names, {self._input: image})  # type: ignore[no-any-return]
