"""GPTQ rounding: the error of each rounded weight is compensated by the weights not yet rounded.

For a convolution with input patches x, the squared error of its output is eᵀ·H·e, with e the weights' errors and H
the sum of x·xᵀ. Rounding one weight at a time and moving the rest by what H says keeps it small, in closed form and
without training: optimal brain quantisation in the order and Cholesky form of GPTQ (arXiv 2210.17323, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from .graph.onnx_graph import attribute, constant_of, is_depthwise, is_grouped, name_of, read_graph
from .graph.session import session

IMAGES = 10
PATCHES = 800
"""Patches taken of each image for each convolution, at seeded random places."""
DAMPING = 0.01
"""Share of the diagonal's mean that is added to H's diagonal: nearly constant inputs then cause no huge corrections."""


def patch_products(
    model: onnx.ModelProto, images: Iterable[NDArray[Any]], seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """H of every convolution of an FP32 model, by node name.

    Dense convolutions: (n, n) with n = channels × kernel area, in the order of their weights; depthwise ones:
    (channels, kernel area, kernel area). Grouped ones have none: their weights are rounded to the nearest integer.
    """
    random = np.random.default_rng(seed)
    convolutions = [node for node in read_graph(model).graph if node.op_type == "Conv" and not is_grouped(node)]
    sources = list(dict.fromkeys(name_of(node.inputs[0]) for node in convolutions))
    network = session(model, sources)
    products: dict[str, NDArray[np.float64]] = {}
    for image in images:
        values = dict(zip(sources, network.run(sources, {model.graph.input[0].name: image}), strict=True))
        for node in convolutions:
            patches = _patches(values[name_of(node.inputs[0])][0], node, random)
            if is_depthwise(node):
                product = np.einsum("cip,cjp->cij", patches, patches)
            else:
                flat = patches.reshape(-1, PATCHES)
                product = flat @ flat.T
            name = node.name or ""
            products[name] = products.get(name, 0.0) + product.astype(np.float64)
    return products


def round_together(
    weight: NDArray[np.float64], scale: NDArray[np.float64], product: NDArray[np.float64], limit: int
) -> NDArray[np.int8]:
    """Integers for `weight` (outputs, inputs, k, k) with one `scale` per output, given its H from `patch_products`."""
    rows = weight.reshape(len(weight), -1)
    if product.ndim == 3:
        rounded = [_round_rows(rows[i : i + 1], scale[i : i + 1], product[i], limit)[0] for i in range(len(rows))]
        return np.stack(rounded).reshape(weight.shape)
    return _round_rows(rows, scale, product, limit).reshape(weight.shape)


def _round_rows(
    rows: NDArray[np.float64], scale: NDArray[np.float64], product: NDArray[np.float64], limit: int
) -> NDArray[np.int8]:
    size = rows.shape[1]
    damped = product + np.eye(size) * (DAMPING * np.trace(product) / size + 1e-12)
    order = np.argsort(-np.diag(damped), kind="stable")  # what matters most is rounded first, and corrected by the rest
    factor = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    left = rows[:, order].copy()
    integers = np.zeros(left.shape, np.int8)
    for column in range(size):
        rounded = np.clip(np.rint(left[:, column] / scale), -limit, limit)
        integers[:, order[column]] = rounded.astype(np.int8)
        error = (left[:, column] - rounded * scale) / factor[column, column]
        left[:, column + 1 :] -= np.outer(error, factor[column, column + 1 :])
    return integers


def _patches(value: NDArray[np.float32], node: ir.Node, random: np.random.Generator) -> NDArray[np.float32]:
    """(channels, kernel area, PATCHES) out of a feature map (channels, height, width)."""
    kernel = constant_of(node, 1).shape[2:]
    strides, dilations = attribute(node, "strides", [1, 1]), attribute(node, "dilations", [1, 1])
    top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
    padded = np.pad(value, ((0, 0), (top, bottom), (left, right))) if any((top, left, bottom, right)) else value
    spans = [dilation * (size - 1) for size, dilation in zip(kernel, dilations, strict=True)]
    rows, columns = ((padded.shape[1 + i] - spans[i] - 1) // strides[i] + 1 for i in (0, 1))
    y, x = random.integers(0, rows, PATCHES) * strides[0], random.integers(0, columns, PATCHES) * strides[1]
    taps = [(dy * dilations[0], dx * dilations[1]) for dy in range(kernel[0]) for dx in range(kernel[1])]
    return np.stack([padded[:, y + dy, x + dx] for dy, dx in taps], axis=1)
