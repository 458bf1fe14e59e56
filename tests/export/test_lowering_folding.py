"""The first convolution over folded columns of the image: the same integers as over the columns one by one."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from retinaface_edge.calibration.recipe import IMAGE_COLUMNS
from retinaface_edge.calibration.record import quant_params_from_json
from retinaface_edge.export.lower.tflite import lower_tflite
from retinaface_edge.export.lower.tflite_context import Constant, Lowered
from retinaface_edge.export.lower.tflite_folding import fold_columns
from retinaface_edge.export.lower.tflite_schema import serialise
from retinaface_edge.export.lower.tflite_windows import Side, Windows
from retinaface_edge.runtime import Bundle
from retinaface_edge.runtime.ops.quantization import QuantParams

HEIGHT = 9


def convolved(image: NDArray[np.int64], weight: NDArray[np.int64], strides: tuple[int, int]) -> NDArray[np.int64]:
    """VALID convolution of (height, width, channels) by (outputs, channels, height, width), a slow definition."""
    outputs, _, kernel_height, kernel_width = weight.shape
    rows = (image.shape[0] - kernel_height) // strides[0] + 1
    columns = (image.shape[1] - kernel_width) // strides[1] + 1
    result = np.zeros((rows, columns, outputs), np.int64)
    for row in range(rows):
        for column in range(columns):
            top, left = row * strides[0], column * strides[1]
            window = image[top : top + kernel_height, left : left + kernel_width]
            result[row, column] = np.einsum("hwc,ochw->o", window, weight)
    return result


@given(
    stride=st.sampled_from([1, 2]),
    fold=st.sampled_from([2, 4, 8]),
    kernel=st.sampled_from([1, 3, 5]),
    groups=st.integers(1, 3),
    seed=st.integers(0, 10**6),
)
def test_folded_columns_give_the_same_sums(stride: int, fold: int, kernel: int, groups: int, seed: int) -> None:
    random, width = np.random.default_rng(seed), fold * groups * 2
    before = kernel // 2
    after = max((width // stride - 1) * stride + kernel - before - width, 0)
    weight = random.integers(-127, 128, (3, 2, kernel, kernel))
    centre = np.array([3, -5])
    image = random.integers(-128, 128, (HEIGHT, width, 2))
    sides = Side(HEIGHT, kernel, stride, 0, 0), Side(width, kernel, stride, before, after)
    source = Lowered((1, HEIGHT, width, 2), integer=0, quant=QuantParams(1.0, 0), centre=centre)
    bias = np.arange(3)
    folded = fold_columns(
        source, Constant(weight, np.ones(3, np.float32)), Constant(bias), Windows(sides, (1, 1)), fold
    )
    assert folded is not None

    def padded(sides: tuple[int, int]) -> NDArray[np.int64]:
        columns = [np.broadcast_to(centre, (HEIGHT, amount, 2)) for amount in sides]
        return np.concatenate([columns[0], image, columns[1]], axis=1)

    expected = convolved(padded((before, after)), weight, (stride, stride)) + bias
    wide = padded(folded.padding[1])
    view = wide.reshape(HEIGHT, wide.shape[1] // fold, fold * 2)
    found = convolved(view, folded.weight.array, (stride, 1)) + folded.bias.array
    assert folded.columns == fold // stride
    assert np.array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize(("width", "fold", "dilation"), [(18, 4, 1), (16, 3, 1), (16, 4, 2)])
def test_what_does_not_divide_stays_as_it_is(width: int, fold: int, dilation: int) -> None:
    source = Lowered((1, HEIGHT, width, 3), integer=0, quant=QuantParams(1.0, 0), centre=np.zeros(3, np.int64))
    weight = Constant(np.ones((2, 3, 3, 3), np.int8), np.ones(2, np.float32))
    around = Windows((Side(HEIGHT, 3, 2, 1, 1), Side(width, 3, 2, 1, 0)), (dilation, dilation))
    assert fold_columns(source, weight, Constant(np.zeros(2)), around, fold) is None


def test_a_file_gives_the_same_integers_however_its_image_is_folded(bundle: Bundle) -> None:
    from ai_edge_litert.interpreter import Interpreter

    model = onnx.load(bundle.path / "onnx" / "model.int8.onnx")
    params = quant_params_from_json(json.loads((bundle.path / "calibration.json").read_text(encoding="utf-8")))
    image = np.random.default_rng(0).integers(0, 256, bundle.spec.input_shape, dtype=np.uint8)
    results, convolutions = [], []
    for columns in IMAGE_COLUMNS:
        graph = lower_tflite(model, params, columns)
        stem = next(operator for operator in graph.operators if operator.name == "CONV_2D")
        convolutions.append(graph.tensors[stem.inputs[1]].shape)
        interpreter = Interpreter(model_content=serialise(graph), num_threads=1)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        results.append({one["name"]: interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()})
    assert convolutions == [(8, 3, 3, 3), (8, 3, 2, 6), (16, 3, 2, 12)]
    for result in results[1:]:
        assert result.keys() == results[0].keys()
        assert all(np.array_equal(result[name], results[0][name]) for name in result)
