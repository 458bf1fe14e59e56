"""Quantisation of a tensor, and what the networks' raw outputs are."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

RawOutput: TypeAlias = NDArray[np.float32] | NDArray[np.int8] | NDArray[np.uint8]


class QuantParams(NamedTuple):
    """Quantisation of one tensor: real = (integer − zero_point)·scale. Float tensors have scale 1 and zero point 0."""

    scale: float = 1.0
    zero_point: int = 0
