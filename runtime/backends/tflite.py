"""TFLite: LiteRT (`ai-edge-litert`), or the older `tflite-runtime` if only that is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contract import Contract
from ..errors import BackendError
from ..io.native_log import held_back, no_information
from ..ops.quantization import QuantParams, RawOutput
from . import Network, check_output


def load(spec: Contract, files: Sequence[bytes], threads: int) -> Network:
    """An interpreter on `files[0]`, a TFLite model."""
    return _TfLite(spec, files[0], threads)


class _TfLite:
    def __init__(self, spec: Contract, model: bytes, threads: int) -> None:
        module = _module()
        with held_back(no_information):
            self._interpreter = module.Interpreter(model_content=model, num_threads=threads)
            self._interpreter.allocate_tensors()
        self._image = self._interpreter.get_input_details()[0]["index"]
        details = {_base_name(detail["name"]): detail for detail in self._interpreter.get_output_details()}
        if missing := [output.name for output in spec.outputs if output.name not in details]:
            raise BackendError(f"the model has no output {missing[0]}; build the bundle again")
        outputs = [details[output.name] for output in spec.outputs]
        for index, detail in enumerate(outputs):
            check_output(spec, index, detail["shape"])
        self._outputs = [detail["index"] for detail in outputs]
        self.quant_params = tuple(_quant(detail) for detail in outputs)

    def run(self, image: NDArray[Any]) -> Sequence[RawOutput]:
        self._interpreter.set_tensor(self._image, image)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def _module() -> ModuleType:
    try:
        from ai_edge_litert import interpreter
    except ImportError:
        from tflite_runtime import interpreter
    return interpreter  # type: ignore[no-any-return]


def _base_name(name: str) -> str:
    """The interpreter may add a signature's or a subgraph's suffix behind a colon."""
    return name.split(":")[0]


def _quant(detail: Mapping[str, Any]) -> QuantParams:
    scale, zero_point = detail["quantization"]
    return QuantParams(float(scale), int(zero_point)) if detail["dtype"] != np.float32 else QuantParams()
