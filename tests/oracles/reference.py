"""The integer reference: what an INT8 TFLite graph computes, operator by operator, in NumPy.

This is the oracle for every kernel. Its arithmetic is that of TensorFlow Lite's reference kernels
(`tensorflow/lite/kernels/internal/reference/`, files named below): real multipliers are turned into an integer and a
shift once, from products of scales; everything after that is integer. Convolutions are matrix products in float64,
which are exact here: a sum of products of 8-bit integers stays far below 2⁵³.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.calibration.fixed_point import Integers, multiplier, rescale
from retinaface_edge.export.lower.tflite_schema import Graph, Operator, Tensor
from retinaface_edge.runtime.errors import RetinaFaceEdgeError

SAME = 0
RELU, RELU6 = 1, 3
ADD_SHIFT = 20
"""ADD widens its terms by this many bits before it rescales them (`add.cc`)."""
INT8 = np.iinfo(np.int8)
INT32 = np.iinfo(np.int32)


class ReferenceError(RetinaFaceEdgeError):
    """A graph that the integer reference does not compute: it has a float operator, or one outside this set."""


def evaluate(graph: Graph, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Every tensor of `graph`, in its order and dtypes, for arrays `inputs` in the order of `graph.inputs`.

    Raises `ReferenceError` when an operator reads or writes floats, is of another type than those here, or when an
    input's shape or dtype is not the graph's.
    """
    values: dict[int, NDArray[Any]] = {i: t.data for i, t in enumerate(graph.tensors) if t.data is not None}
    for index, array in zip(graph.inputs, inputs, strict=True):
        tensor = graph.tensors[index]
        if array.shape != tensor.shape or array.dtype != tensor.dtype:
            raise ReferenceError(
                f"input {tensor.name!r} has shape {array.shape} and dtype {array.dtype}, "
                f"the graph says {tensor.shape} and {tensor.dtype}"
            )
        values[index] = array
    for operator in graph.operators:
        kernel = KERNELS.get(operator.name)
        (index,) = operator.outputs
        result = graph.tensors[index]
        terms = [_Term(graph.tensors[i], values[i]) for i in operator.inputs]
        if kernel is None or np.float32 in (result.dtype, *(term.tensor.dtype for term in terms)):
            raise ReferenceError(
                f"operator {operator.name} of {result.name!r} has no integer reference; it computes {result.dtype}"
            )
        values[index] = kernel(operator, terms, result).astype(result.dtype)
    return [values[index] for index in range(len(graph.tensors))]


@dataclass(frozen=True)
class _Term:
    """An operand: its description and its integers as stored."""

    tensor: Tensor
    array: NDArray[Any]

    @property
    def scale(self) -> np.float32:
        return _scale(self.tensor)

    @property
    def centred(self) -> Integers:
        """The integers without the zero point."""
        return self.array.astype(np.int64) - _zero_point(self.tensor)


def _quantize(operator: Operator, terms: Sequence[_Term], result: Tensor) -> Integers:
    """Integers to another grid: `requantize.h`; the ratio of the scales is taken in float32 (`quantize.cc`)."""
    (source,) = terms
    return _quantised(rescale(source.centred, multiplier(float(source.scale / _scale(result)))), result)


def _concatenation(operator: Operator, terms: Sequence[_Term], result: Tensor) -> NDArray[Any]:
    return np.concatenate([term.array for term in terms], axis=operator.options["axis"])


def _pad(operator: Operator, terms: Sequence[_Term], result: Tensor) -> NDArray[Any]:
    source, amounts = terms
    return np.pad(source.array, amounts.array.tolist(), constant_values=_zero_point(result))


def _pad_with(operator: Operator, terms: Sequence[_Term], result: Tensor) -> NDArray[Any]:
    source, amounts, fill = terms
    return np.pad(source.array, amounts.array.tolist(), constant_values=fill.array.item())


def _slice(operator: Operator, terms: Sequence[_Term], result: Tensor) -> NDArray[Any]:
    source, begin, size = terms
    return source.array[tuple(slice(b, b + n) for b, n in zip(begin.array, size.array, strict=True))]


def _reshape(operator: Operator, terms: Sequence[_Term], result: Tensor) -> NDArray[Any]:
    return terms[0].array.reshape(result.shape)


def _max_pool(operator: Operator, terms: Sequence[_Term], result: Tensor) -> Integers:
    """`integer_ops/pooling.h`: the stored integers; what SAME pads with never is the largest."""
    return np.asarray(_pool_windows(operator, terms, INT8.min).max(axis=(3, 4)))[None]


def _average_pool(operator: Operator, terms: Sequence[_Term], result: Tensor) -> Integers:
    """`integer_ops/pooling.h`: the mean of the stored integers inside the picture, halves away from 0."""
    sums = _pool_windows(operator, terms, 0).sum(axis=(3, 4))
    ones = np.ones_like(terms[0].array, np.int64)
    counts = _windows(operator, ones, _filter(operator)).sum(axis=(3, 4))
    return np.asarray(np.sign(sums) * ((np.abs(sums) + counts // 2) // counts))[None]


def _pool_windows(operator: Operator, terms: Sequence[_Term], outside: int) -> Integers:
    return _windows(operator, terms[0].array.astype(np.int64), _filter(operator), outside)


def _filter(operator: Operator) -> tuple[int, int]:
    return operator.options["filterHeight"], operator.options["filterWidth"]


def _conv(operator: Operator, terms: Sequence[_Term], result: Tensor) -> Integers:
    """`integer_ops/conv.h`: kernel (outputs, height, width, inputs)."""
    source, kernel, _ = terms
    windows = _windows(operator, source.centred, kernel.array.shape[1:3])
    height, width = windows.shape[:2]
    columns = windows.transpose(0, 1, 3, 4, 2).reshape(height * width, -1).astype(np.float64)
    sums = (columns @ kernel.array.reshape(len(kernel.array), -1).T.astype(np.float64)).astype(np.int64)
    return _convolved(operator, sums.reshape(1, height, width, -1), terms, result)


def _depthwise_conv(operator: Operator, terms: Sequence[_Term], result: Tensor) -> Integers:
    """`integer_ops/depthwise_conv.h`: kernel (1, height, width, channels), one filter a channel."""
    source, kernel, _ = terms
    windows = _windows(operator, source.centred, kernel.array.shape[1:3])
    sums = np.zeros(windows.shape[:3], np.int64)
    for row, column in np.ndindex(*windows.shape[3:]):
        sums += windows[..., row, column] * kernel.array[0, row, column].astype(np.int64)
    return _convolved(operator, sums[None], terms, result)


def _convolved(operator: Operator, sums: Integers, terms: Sequence[_Term], result: Tensor) -> Integers:
    """Bias, rescaling by channel, zero point and activation; the factors are products and quotients in float64."""
    source, kernel, bias = terms
    assert kernel.tensor.quantisation is not None
    scales = np.array(kernel.tensor.quantisation.scales, np.float32).astype(np.float64)
    factor = np.float64(source.scale) * scales / np.float64(_scale(result))
    sums = sums + bias.array
    if np.any((sums < INT32.min) | (sums > INT32.max)):
        raise ReferenceError(f"operator {operator.name} of {result.name!r} overflows its 32-bit sums")
    return _activated(operator, rescale(sums, multiplier(factor)), result)


def _leaky_relu(operator: Operator, terms: Sequence[_Term], result: Tensor) -> Integers:
    """`leaky_relu.h`; both factors are taken in float32 (`activations.cc`)."""
    (source,) = terms
    ratio = source.scale / _scale(result)
    slope = source.scale * np.float32(operator.options["alpha"]) / _scale(result)
    values = source.centred
    negative = rescale(values, multiplier(float(slope)))
    return _quantised(np.where(values >= 0, rescale(values, multiplier(float(ratio))), negative), result)


def _add(operator: Operator, terms: Sequence[_Term], result: Tensor) -> Integers:
    """`integer_ops/add.h`: both terms on a common grid of twice the larger scale, widened by 20 bits (`add.cc`)."""
    common = 2.0 * max(float(term.scale) for term in terms)
    total = sum(
        (rescale(term.centred << ADD_SHIFT, multiplier(float(term.scale) / common)) for term in terms),
        np.int64(0),
    )
    rescaled = rescale(np.asarray(total), multiplier(common / (2.0**ADD_SHIFT * float(_scale(result)))))
    return _activated(operator, rescaled, result)


def _resize_nearest_neighbor(operator: Operator, terms: Sequence[_Term], result: Tensor) -> NDArray[Any]:
    """`resize_nearest_neighbor.h` without aligned corners or half pixels: source index = ⌊index·in/out⌋."""
    source = terms[0].array
    rows, columns = (
        np.minimum(
            np.floor(np.arange(after, dtype=np.float32) * (np.float32(before) / np.float32(after))).astype(int),
            before - 1,
        )
        for before, after in zip(source.shape[1:3], result.shape[1:3], strict=True)
    )
    return source[:, rows][:, :, columns]


BILINEAR_BITS = 10


def _resize_bilinear(operator: Operator, terms: Sequence[_Term], result: Tensor) -> NDArray[Any]:
    """`ResizeBilinearInteger` in `resize_bilinear.h`: places and weights in units of 1/1024, halves away from 0."""
    source, unit = terms[0].array.astype(np.int64), 1 << BILINEAR_BITS
    places = []
    for before, after in zip(source.shape[1:3], result.shape[1:3], strict=True):
        low, high = before, after
        if operator.options["alignCorners"] and after > 1:
            low, high = before - 1, after - 1
        step = (unit * low + high // 2) // high
        place = np.arange(after) * step
        if operator.options["halfPixelCenters"]:
            place += step // 2 - unit // 2
        first = np.maximum(place // unit, 0)
        second = np.minimum((place + unit - 1) // unit, before - 1)
        places.append((first, second, place - unit * first))
    (top, bottom, down), (left, right, across) = places
    down, across = down[:, np.newaxis, np.newaxis], across[:, np.newaxis]
    total = (
        source[:, top][:, :, left] * (unit - down) * (unit - across)
        + source[:, bottom][:, :, left] * down * (unit - across)
        + source[:, top][:, :, right] * (unit - down) * across
        + source[:, bottom][:, :, right] * down * across
    )
    half = 1 << (2 * BILINEAR_BITS - 1)
    rounded: NDArray[Any] = (np.sign(total) * ((np.abs(total) + half) >> (2 * BILINEAR_BITS))).astype(
        terms[0].array.dtype
    )
    return rounded


KERNELS: dict[str, Callable[[Operator, Sequence[_Term], Tensor], NDArray[Any]]] = {
    "ADD": _add,
    "AVERAGE_POOL_2D": _average_pool,
    "CONCATENATION": _concatenation,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise_conv,
    "LEAKY_RELU": _leaky_relu,
    "MAX_POOL_2D": _max_pool,
    "PAD": _pad,
    "PADV2": _pad_with,
    "QUANTIZE": _quantize,
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": _resize_nearest_neighbor,
    "SLICE": _slice,
}


def _windows(operator: Operator, source: Integers, kernel: tuple[int, int], outside: int = 0) -> Integers:
    """Every window of the one image in `source`: (height, width, channels, kernel height, kernel width)."""
    strides = operator.options["strideH"], operator.options["strideW"]
    dilations = operator.options.get("dilationHFactor", 1), operator.options.get("dilationWFactor", 1)
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    padding = [(0, 0)] * 2
    if operator.options["padding"] == SAME:
        totals = [
            max((math.ceil(n / s) - 1) * s + k - n, 0)
            for n, s, k in zip(source.shape[1:3], strides, reach, strict=True)
        ]
        padding = [(total // 2, total - total // 2) for total in totals]
    padded = np.pad(source[0], [*padding, (0, 0)], constant_values=outside)
    every = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(0, 1))
    return every[:: strides[0], :: strides[1], :, :: dilations[0], :: dilations[1]]


def _activated(operator: Operator, integers: Integers, result: Tensor) -> Integers:
    """On the result's grid, between the activation's bounds (`CalculateActivationRangeQuantized`, kernel_util.cc)."""
    activation, scale = operator.options["fusedActivationFunction"], _scale(result)
    centred = np.clip(integers, 0 if activation in (RELU, RELU6) else None, None)
    if activation == RELU6:
        centred = np.minimum(centred, math.floor(float(np.float32(6.0) / scale) + 0.5))
    return _quantised(centred, result)


def _quantised(integers: Integers, result: Tensor) -> Integers:
    return np.clip(integers + _zero_point(result), INT8.min, INT8.max)


def _scale(tensor: Tensor) -> np.float32:
    assert tensor.quantisation is not None
    return np.float32(tensor.quantisation.scales[0])


def _zero_point(tensor: Tensor) -> int:
    assert tensor.quantisation is not None
    return tensor.quantisation.zero_points[0]
