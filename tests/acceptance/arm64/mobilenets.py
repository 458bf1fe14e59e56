"""MobileNet v1 and v2 as TFLite, with random weights: networks whose times on a Raspberry Pi 4 are published.

Written from the tables of the papers (arXiv 1704.04861, table 1; arXiv 1801.04381, table 2), width 1.0, 224×224, as
XNNPACK's `end2end-bench` has them: without softmax, INT8 with one scale per output channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.export.lower.tflite_schema import Graph, Operator, Quantisation, Tensor, serialise

SAME, VALID, NO_ACTIVATION, RELU6 = 0, 1, 0, 3
SIZE, CLASSES = 224, 1001
V1_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Output channels and stride of each depthwise separable block."""
V2_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, output channels, repetitions and first stride of each group of bottlenecks."""
GRID = Quantisation((0.05,), (0,))


@dataclass(frozen=True)
class Value:
    """A value of the network: its tensor, side and channels."""

    tensor: int
    side: int
    channels: int


class Builder:
    """A graph in the making."""

    def __init__(self, int8: bool) -> None:
        self.random = np.random.default_rng(0)
        self.int8 = int8
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []

    def value(self, side: int, channels: int) -> Value:
        """A new value that some operator will write."""
        shape = (1, side, side, channels)
        return Value(self.add(Tensor(f"value{len(self.tensors)}", self.dtype, shape, self.grid)), side, channels)

    @property
    def dtype(self) -> np.dtype[np.int8] | np.dtype[np.float32]:
        """What values are."""
        return np.dtype(np.int8) if self.int8 else np.dtype(np.float32)

    @property
    def grid(self) -> Quantisation | None:
        """The grid of values."""
        return GRID if self.int8 else None

    def add(self, tensor: Tensor) -> int:
        """A tensor's index."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, array: NDArray[np.float32], channels: int, axis: int, is_bias: bool = False) -> int:
        """Weights or a bias, in INT8 with a scale for each output channel."""
        name = f"constant{len(self.tensors)}"
        if not self.int8:
            return self.add(Tensor(name, array.dtype, array.shape, None, array))
        kind = np.int32 if is_bias else np.int8
        data = np.round(array * 100).astype(kind)
        scale = 0.005 * GRID.scales[0] if is_bias else 0.005
        return self.add(
            Tensor(name, data.dtype, data.shape, Quantisation((scale,) * channels, (0,) * channels, axis), data)
        )

    def convolution(
        self, source: Value, channels: int, kernel: int = 1, stride: int = 1, linear: bool = False
    ) -> Value:
        """A convolution with SAME padding and ReLU6."""
        weights = self.random.uniform(-1, 1, (channels, kernel, kernel, source.channels)).astype(np.float32)
        return self._convolve("CONV_2D", source, weights, channels, stride, linear, 0)

    def depthwise(self, source: Value, stride: int) -> Value:
        """A 3×3 depthwise convolution with SAME padding and ReLU6."""
        weights = self.random.uniform(-1, 1, (1, 3, 3, source.channels)).astype(np.float32)
        return self._convolve("DEPTHWISE_CONV_2D", source, weights, source.channels, stride, False, 3)

    def _convolve(
        self,
        kind: str,
        source: Value,
        weights: NDArray[np.float32],
        channels: int,
        stride: int,
        linear: bool,
        axis: int,
    ) -> Value:
        result = self.value(-(-source.side // stride), channels)
        bias = self.random.uniform(-1, 1, channels).astype(np.float32)
        inputs = (source.tensor, self.constant(weights, channels, axis), self.constant(bias, channels, 0, is_bias=True))
        activation = NO_ACTIVATION if linear else RELU6
        options = {"padding": SAME, "strideH": stride, "strideW": stride, "fusedActivationFunction": activation}
        if kind == "DEPTHWISE_CONV_2D":
            options["depthMultiplier"] = 1
        self.operators.append(Operator(kind, inputs, (result.tensor,), options))
        return result

    def addition(self, a: Value, b: Value) -> Value:
        """The sum of a bottleneck's input and output."""
        result = self.value(a.side, a.channels)
        options = {"fusedActivationFunction": NO_ACTIVATION}
        self.operators.append(Operator("ADD", (a.tensor, b.tensor), (result.tensor,), options))
        return result

    def classifier(self, source: Value) -> bytes:
        """The mean over the picture and the classes, and with them the file."""
        pooled = self.value(1, source.channels)
        side = {"filterWidth": source.side, "filterHeight": source.side, "strideW": 1, "strideH": 1}
        options = {**side, "padding": VALID, "fusedActivationFunction": NO_ACTIVATION}
        self.operators.append(Operator("AVERAGE_POOL_2D", (source.tensor,), (pooled.tensor,), options))
        classes = self.convolution(pooled, CLASSES, linear=True)
        return serialise(Graph(self.tensors, self.operators, inputs=[0], outputs=[classes.tensor]))


def mobilenet_v1(int8: bool) -> bytes:
    """The file of MobileNet v1 1.0 at 224×224."""
    builder = Builder(int8)
    value = builder.convolution(builder.value(SIZE, 3), 32, kernel=3, stride=2)
    for channels, stride in V1_BLOCKS:
        value = builder.convolution(builder.depthwise(value, stride), channels)
    return builder.classifier(value)


def mobilenet_v2(int8: bool) -> bytes:
    """The file of MobileNet v2 1.0 at 224×224."""
    builder = Builder(int8)
    value = builder.convolution(builder.value(SIZE, 3), 32, kernel=3, stride=2)
    for expansion, channels, repetitions, first_stride in V2_BLOCKS:
        for repetition in range(repetitions):
            source, stride = value, first_stride if repetition == 0 else 1
            if expansion > 1:
                value = builder.convolution(value, expansion * source.channels)
            value = builder.convolution(builder.depthwise(value, stride), channels, linear=True)
            if stride == 1 and source.channels == channels:
                value = builder.addition(source, value)
    return builder.classifier(builder.convolution(value, 1280))


NETWORKS = {"MobileNet v1": mobilenet_v1, "MobileNet v2": mobilenet_v2}
