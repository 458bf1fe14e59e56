"""Rounding weights together: each weight's rounding error is made up for by the weights not yet rounded.

For a convolution with input patches x, the squared error of its output is eᵀ·H·e, with e the weights' errors and H
the sum of x·xᵀ. Rounding one weight at a time and moving the rest by what H says keeps it small, in closed form and
without training: optimal brain quantisation in the order and Cholesky form of GPTQ (arXiv 2210.17323, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

IMAGES = 10
PATCHES = 800
"""Patches taken of each image for each convolution, at seeded random places."""
DAMPING = 0.01
"""Share of H's mean diagonal added to it, so that inputs that hardly vary do not blow corrections up."""


def patch_products(
    model: onnx.ModelProto, images: Iterable[NDArray[Any]], seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """H of every convolution of an FP32 model, by node name.

    Dense convolutions: (n, n) with n = channels × kernel area, in the order of their weights; depthwise ones:
    (channels, kernel area, kernel area).
    """
    random = np.random.default_rng(seed)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    sources = list(dict.fromkeys(node.input[0] for node in convolutions))
    session = _session_giving(model, sources)
    products: dict[str, NDArray[np.float64]] = {}
    for image in images:
        values = dict(zip(sources, session.run(sources, {model.graph.input[0].name: image}), strict=True))
        for node in convolutions:
            patches = _patches(values[node.input[0]][0], node, weights[node.input[1]].shape[2], random)
            if weights[node.input[1]].shape[1] == 1:
                product = np.einsum("cip,cjp->cij", patches, patches)
            else:
                flat = patches.reshape(-1, PATCHES)
                product = flat @ flat.T
            products[node.name] = products.get(node.name, 0.0) + product.astype(np.float64)
    return products


def round_together(
    weight: NDArray[np.float64], scale: NDArray[np.float64], product: NDArray[np.float64], limit: int
) -> NDArray[np.int8]:
    """Integers for `weight` (outputs, inputs, k, k) with one `scale` an output, given its H from `patch_products`."""
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


def _patches(
    value: NDArray[np.float32], node: onnx.NodeProto, kernel: int, random: np.random.Generator
) -> NDArray[np.float32]:
    """(channels, kernel area, PATCHES) out of a feature map (channels, height, width)."""
    attributes: Mapping[str, list[int]] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    stride, pad = attributes["strides"][0], attributes["pads"][0]
    padded = np.pad(value, ((0, 0), (pad, pad), (pad, pad))) if pad else value
    rows, columns = ((side - kernel) // stride + 1 for side in padded.shape[1:])
    y, x = random.integers(0, rows, PATCHES) * stride, random.integers(0, columns, PATCHES) * stride
    return np.stack([padded[:, y + dy, x + dx] for dy in range(kernel) for dx in range(kernel)], axis=1)


def _session_giving(model: onnx.ModelProto, values: Iterable[str]) -> onnxruntime.InferenceSession:
    giving = onnx.ModelProto()
    giving.CopyFrom(model)
    del giving.graph.output[:]
    giving.graph.output.extend(helper.make_tensor_value_info(v, onnx.TensorProto.FLOAT, None) for v in values)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(giving.SerializeToString(), options, providers=["CPUExecutionProvider"])
