"""Compute peak: the most multiply–accumulates per second that these cores were seen to do.

Eight 1×1 convolutions of 256 channels on 32×32 pixels (0.54 GMAC, and all of it fits a core's own cache), by OpenVINO:
with float32 values, and with 8-bit ones as a quantised network has them. For float32 also NumPy's matrix product. The
best of many runs counts. It is a measured limit, not a proven one: a better kernel may do more.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from retinaface_edge.runtime.backends.openvino import core

from .result import ComputePeak

LAYERS, CHANNELS, SIDE = 8, 256, 32
NUMPY_SIDE = 768
SECONDS = 0.5
GIGA = 1e9


def measure_compute_peak(cores: Sequence[int]) -> ComputePeak:
    """Measure for about two seconds; call it in a process pinned to `cores`."""
    a, b = np.random.default_rng(0).random((2, NUMPY_SIDE, NUMPY_SIDE), np.float32)
    out = np.empty_like(a)
    # What others do on this core is not this core's limit; several cores' work is only told by the clock.
    clock = time.process_time if len(cores) == 1 else time.perf_counter
    fp32 = _rate(NUMPY_SIDE**3, lambda: np.matmul(a, b, out=out), clock)
    if importlib.util.find_spec("openvino") is None:
        return ComputePeak(fp32 / GIGA)
    work = LAYERS * CHANNELS**2 * SIDE**2
    rates = [_rate(work, _convolutions(quantised, len(cores)), clock) for quantised in (False, True)]
    return ComputePeak(max(fp32, rates[0]) / GIGA, rates[1] / GIGA)


def _rate(work: int, run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Units of `work` per second, by the best of the runs that fit the time."""
    best, until = math.inf, clock() + SECONDS
    while (begin := clock()) < until:
        run()
        best = min(best, clock() - begin)
    return work / best


def _convolutions(quantised: bool, threads: int) -> Callable[[], object]:
    import openvino
    from openvino import opset13 as ops

    rng = np.random.default_rng(0)
    image = ops.parameter([1, CHANNELS, SIDE, SIDE], np.float32)
    value: Any = image
    for _ in range(LAYERS):
        # Weights that keep the values' size: none becomes infinite or denormal, which would take another time.
        bound = math.sqrt(3.0 / CHANNELS)
        weights = rng.uniform(-bound, bound, (CHANNELS, CHANNELS, 1, 1)).astype(np.float32)
        if quantised:
            value = ops.fake_quantize(value, _range(-4.0), _range(3.96875), _range(-4.0), _range(3.96875), 256)
            scale = np.float32(bound / 127.0)
            integers = ops.constant(np.round(weights / scale).astype(np.int8))
            kernel = ops.multiply(ops.convert(integers, np.float32), ops.constant(scale))
        else:
            kernel = ops.constant(weights)
        value = ops.convolution(value, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
    options = {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": str(threads), "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core().compile_model(openvino.Model([value], [image]), "CPU", options)
    request = compiled.create_infer_request()
    request.get_input_tensor().data[:] = rng.standard_normal((1, CHANNELS, SIDE, SIDE), np.float32)
    return lambda: request.infer()


def _range(value: float) -> Any:
    from openvino import opset13 as ops

    return ops.constant(np.float32(value))
