"""Real factors as integers: how TensorFlow Lite's reference kernels multiply by a ratio of scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Multiplier:
    """A real factor as value·2^(shift − 31), with 2³⁰ ≤ value < 2³¹ (`QuantizeMultiplier`, `quantization_util.cc`).

    Both arrays are int64, of shape () or (channels,).
    """

    value: Integers
    shift: Integers


def multiplier(factor: NDArray[np.float64] | float) -> Multiplier:
    """The nearest `Multiplier` of non-negative factors, halves away from 0; below 2⁻³² they are 0."""
    fraction, shift = np.frexp(np.asarray(factor, np.float64))
    value = np.floor(fraction * 2.0**31 + 0.5).astype(np.int64)
    carried = value == 1 << 31
    value, shift = np.where(carried, value // 2, value), shift + carried
    vanished = shift < -31
    return Multiplier(np.where(vanished, 0, value), np.where(vanished, 0, shift).astype(np.int64))


def rescale(integers: Integers, by: Multiplier) -> Integers:
    """`integers` times a multiplier, rounded twice (`MultiplyByQuantizedMultiplier`, `common.h`; gemmlowp).

    First to x·value·2^left/2³¹, halves up (`SaturatingRoundingDoublingHighMul`), then to that over 2^right, halves away
    from 0 (`RoundingDivideByPOT`), where shift = left − right and one of both is 0. LiteRT can be compiled to round
    once; its released packages are not, and the second rounding decides one conversion in about 2^right.
    """
    left, right = np.maximum(by.shift, 0), np.maximum(-by.shift, 0)
    high = ((integers << left) * by.value + (1 << 30)) >> 31
    half = (np.int64(1) << right) >> 1
    return np.asarray(np.where(high >= 0, (high + half) >> right, -((half - high) >> right)))
