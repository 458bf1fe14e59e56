"""OpenVINO, CPU.

With a folder in the environment variable `RETINAFACE_EDGE_CACHE`, the compiled model is kept there
(`openvino_cache.py`); reading it takes a quarter of the time that compiling takes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contract import Contract
from ..errors import BackendError
from ..ops.quantization import QuantParams, RawOutput
from . import Network, check_output
from .openvino_cache import compiled

QUANT_PARAMS = "grids"  # the name in the files of bundles
"""Where the IR's runtime information has the scale and zero point of each output that gives integers."""

COPIED = 1 << 16
"""Inputs of at most so many bytes are copied, cheaper than giving the plugin their memory."""


def load(spec: Contract, files: Sequence[bytes], threads: int) -> Network:
    """A compiled model on `files`: the IR's XML and its weights."""
    return _OpenVino(spec, files[0], files[1], threads)


def core() -> Any:
    """The process's one `openvino.Core`, which is never released.

    Its CPU plugin sets the stack on which signals are handled, and puts back what it found when it is released. Where
    several are released in another order than the reverse, that is memory that is gone: the next signal is a crash.
    """
    import openvino

    process = os.getpid()  # a fork has its own, since threads do not survive the fork
    return _CORES.get(process) or _CORES.setdefault(process, openvino.Core())


_CORES: dict[int, Any] = {}


class _OpenVino:
    def __init__(self, spec: Contract, model: bytes, weights: bytes, threads: int) -> None:
        import openvino

        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads),
            # On some CPUs the plugin would choose bf16 or fp16 by itself: other figures than were checked.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        engine = core()
        network = engine.read_model(model, weights)
        asked = {output.name for output in spec.outputs}
        for result in network.get_results():
            if not asked & result.output(0).get_names():  # features for a dense branch that nobody asked for
                network.remove_result(result)
        decisive = [model, weights, *sorted(asked), openvino.__version__]
        ready = compiled(engine, decisive, options, lambda: engine.compile_model(network, "CPU", options))
        ports = [ready.output(output.name) for output in spec.outputs]
        for index, port in enumerate(ports):
            check_output(spec, index, tuple(port.shape))
        self._request = ready.create_infer_request()
        self._tensors = [self._request.get_tensor(port) for port in ports]
        self._outputs = [tensor.data for tensor in self._tensors]
        self._tensor = openvino.Tensor
        tensor = self._request.get_input_tensor()
        self._input = tensor.data if tensor.byte_size <= COPIED else None
        self.quant_params = tuple(_quant(network, output.name) for output in spec.outputs)

    def run(self, image: NDArray[Any]) -> Sequence[RawOutput]:
        if self._input is None:
            self._request.set_input_tensor(self._tensor(image, shared_memory=True))
        elif image.shape == self._input.shape:
            np.copyto(self._input, image, casting="no")
        else:  # copied, it would be repeated to fit
            raise BackendError(f"the network takes an input of shape {self._input.shape}, not {image.shape}")
        self._request.infer(share_outputs=True)  # otherwise it copies them for a result that nobody reads
        return self._outputs


def _quant(network: Any, name: str) -> QuantParams:
    if not network.has_rt_info([QUANT_PARAMS, name]):
        return QuantParams()
    scale, zero_point = network.get_rt_info([QUANT_PARAMS, name]).astype(str).split()
    return QuantParams(float(scale), int(zero_point))
