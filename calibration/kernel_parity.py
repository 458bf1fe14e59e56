"""Scales on which all kernels compute the same integers.

TensorFlow Lite's reference kernels multiply in fixed point and round twice; XNNPACK multiplies sums of a convolution in
float32 and rounds once, LeakyReLU in steps of 1/256, halves up, and sums of two tensors with factors of 21 bits. They
differ only near halves, and where values come near halves is a matter of the scales. One difference is enough to change
what later layers see, so none is let through.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.ops.quantization import QuantParams

from .fixed_point import Multiplier, multiplier, rescale

STEPS = 255
UNIT = 256
"""XNNPACK's LeakyReLU holds its factors in units of 1/256 (`qs8-vlrelu`)."""
NUDGES = (1e-7, 2e-7, 4e-7, 8e-7, 1.6e-6, 3.2e-6)
"""How far above an exact half a sum may be put: a few float32 roundings, and far less than one unit of the sum."""
TRIES = 64
SUM_TRIES = 200
FEWER_STEPS = (4096, 2048, 1024)
"""How many steps of a sum make one of the result, at most, where none was found near what the weights need.

Float32 holds 255 times as many to better than a step. With 4,096, rounding the weights of a 3×3×64 convolution moves
its result by a tenth of a step.
"""


def weight_scales(least: NDArray[np.float32], source: float, result: float) -> NDArray[np.float32]:
    """For each channel of a convolution the smallest scale of its weights, from `least` on, on which kernels agree.

    `least` (channels,) float32 are the scales that the weights need, `source` and `result` the scales of what is read
    and written. A sum then counts 1/n steps of the result, n an even whole number, less a nudge: halves are sums of
    their own, a nudge above the half for every kernel, and no other sum is close enough to be rounded up twice. Since n
    is some hundred, scales grow by a few per mille. Where n is so large that nothing is found, as in channels of nearly
    no weight, it is made smaller (`FEWER_STEPS`). A channel for which that finds nothing either keeps `least`.
    """
    given, wanted = np.float64(np.float32(source)), np.float64(np.float32(result))
    factor = given * least.astype(np.float64) / wanted
    scales = least.copy()
    open_channels = np.flatnonzero(factor <= 0.25)
    parts = 2 * np.floor(0.5 / factor).astype(np.int64)
    for most in (None, *FEWER_STEPS):
        if most is not None:
            parts[open_channels] = np.minimum(parts[open_channels] - 2 * TRIES, most)
        found = _agreeing_scales(parts[open_channels], given, wanted)
        settled = ~np.isnan(found)
        scales[open_channels[settled]] = found[settled]
        open_channels = open_channels[~settled]
    return scales


def _agreeing_scales(parts: NDArray[np.int64], given: np.float64, wanted: np.float64) -> NDArray[np.float32]:
    """For each channel the smallest scale found on which kernels agree, from 1/`parts` of the result's on; or NaN."""
    scales, parts = np.full(len(parts), np.nan, np.float32), parts.copy()
    open_channels = np.flatnonzero(parts >= 4)
    for _ in range(TRIES):
        for nudge in NUDGES:
            scale = (wanted / (given * parts[open_channels]) * (1.0 + nudge)).astype(np.float32)
            found = _sums_agree(scale, given, wanted, parts[open_channels])
            scales[open_channels[found]] = scale[found]
            open_channels = open_channels[~found]
        parts[open_channels] -= 2
        open_channels = open_channels[parts[open_channels] >= 4]
        if not len(open_channels):
            break
    return scales


def before_leaky_relu(after: float, units: int) -> float:
    """The float32 scale before a LeakyReLU with that scale after it whose ratio is `units`/256, or just above.

    Just above, never below: on a half, XNNPACK rounds up, and fixed point too unless the ratio was rounded down.
    """
    ratio, scale = units / UNIT, np.float32(after)
    before = np.float32(np.float64(scale) * ratio)
    while np.float64(before / scale) < ratio:
        before = np.nextafter(before, np.float32(np.inf))
    return float(before)


def leaky_relu_slope(before: float, after: float, slope: float) -> float:
    """The slope to write into the LEAKY_RELU between those scales: where fixed point gives XNNPACK's integers.

    XNNPACK rounds the negative factor to 1/256, so slopes that it cannot tell apart may differ in fixed point, which
    rounds outward. The slope stays within 1/512 of a factor of the one asked for.
    """
    ratio = float(np.float32(before) / np.float32(after))
    units = round(UNIT * ratio * slope)
    if units < 1:
        return slope
    return float(np.float32(negative_factor(units)[0] / ratio))


@lru_cache(maxsize=1024)
def negative_factor(units: int) -> tuple[float, int]:
    """The factor nearest `units`/256 that in fixed point multiplies negative integers as XNNPACK does `units`/256.

    The second number is the reach: they agree on −reach…−1. The factor is one that has the longest.
    """
    values = -np.arange(1, STEPS + 1, dtype=np.int64)
    offsets = np.array(sorted(np.linspace(-0.49, 0.49, 99), key=abs))
    factors = (units + offsets) / UNIT
    fixed = multiplier(factors[:, None])
    differs = rescale(values, fixed) != (values * units + UNIT // 2) // UNIT
    reaches = np.where(differs.any(axis=1), differs.argmax(axis=1), STEPS)
    best = int(reaches.argmax())
    return float(factors[best]), int(reaches[best])


def agreeing_sum(first: QuantParams, second: QuantParams, result: QuantParams) -> QuantParams:
    """Parameters for an addition's result on which kernels add alike: `result`, or one of a slightly larger scale.

    All 65,536 pairs of integers are tried, so what agrees here agrees on every image. Steps of 1e-4 shift the sums that
    are near halves; a dozen of them are enough nearly always. Not even one pair is left: a large network meets it on
    every image, and then all later layers see other values. `result` stays where nothing was found.
    """
    for step in range(SUM_TRIES):
        candidate = result._replace(scale=float(np.float32(result.scale * (1.0 + 1e-4 * step))))
        if not _pairs_that_differ(first, second, candidate):
            return candidate
    return result


def _pairs_that_differ(first: QuantParams, second: QuantParams, result: QuantParams) -> int:
    """For how many of the pairs of integers XNNPACK and the reference kernels add up to different integers.

    XNNPACK (`qs8-vadd`): both scales over the result's as integers with one shift, the larger of 21 bits; one rounding,
    halves up. Reference (`add.cc`): terms widened by 20 bits and brought to twice the larger scale, then to the result.
    """
    terms = [np.arange(STEPS + 1, dtype=np.int64) - quant.zero_point for quant in (first, second)]
    scales = [np.float32(quant.scale) for quant in (first, second)]
    ratios = [scale / np.float32(result.scale) for scale in scales]
    shift = 21 - int(np.frexp(max(ratios))[1])
    factors = [int(np.rint(np.ldexp(np.float64(ratio), shift))) for ratio in ratios]
    total = terms[0][:, None] * factors[0] + terms[1] * factors[1]
    xnnpack = (total + (1 << (shift - 1))) >> shift
    twice = 2.0 * max(map(float, scales))
    widened = [rescale(t << 20, multiplier(float(s) / twice)) for t, s in zip(terms, scales, strict=True)]
    exact = rescale(widened[0][:, None] + widened[1], multiplier(twice / (2.0**20 * float(np.float32(result.scale)))))
    ends = (-result.zero_point, STEPS - result.zero_point)
    return int(np.count_nonzero(np.clip(xnnpack, *ends) != np.clip(exact, *ends)))


def _sums_agree(
    scale: NDArray[np.float32], given: np.float64, wanted: np.float64, parts: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """For each channel, whether every sum next to a half is rounded alike in fixed point and in float32."""
    halves = (2 * np.arange(STEPS + 1) + 1) * parts[:, None] // 2
    sums = np.concatenate([sign * (halves + offset) for sign in (1, -1) for offset in (-1, 0, 1)], axis=1)
    fixed = multiplier(given * scale.astype(np.float64) / wanted)
    exact = rescale(sums, Multiplier(fixed.value[:, None], fixed.shift[:, None]))
    factor = np.float32(given) * scale / np.float32(wanted)
    real = sums.astype(np.float32) * factor[:, None]
    # Rounded both ways: a product that float32 puts on the half itself would depend on the kernel's rule for ties.
    return np.asarray(((np.floor(real + 0.5) == exact) & (np.ceil(real - 0.5) == exact)).all(axis=1))
