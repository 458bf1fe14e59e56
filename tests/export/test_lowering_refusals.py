"""What has no TFLite lowering is refused by one line that names the node and what about it cannot be: each in a graph
of the fewest nodes that get there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from retinaface_edge.export.lower.tflite import LARGEST_SIDE, LoweringError, lower_tflite

IMAGE, FLOATS = (TensorProto.UINT8, (1, 4, 6, 3)), (TensorProto.FLOAT, (1, 4, 6, 2))
TO_NCHW = [0, 3, 1, 2]


def node(kind: str, inputs: Sequence[str], **attributes: object) -> onnx.NodeProto:
    """A node that is called as its result is: its type in small letters."""
    return helper.make_node(kind, list(inputs), [kind.lower()], kind.lower(), **attributes)


def graph(
    *nodes: onnx.NodeProto,
    inputs: Mapping[str, tuple[int, Sequence[int]]],
    constants: Mapping[str, np.ndarray] | None = None,
    output: str | None = None,
) -> onnx.ModelProto:
    """Not checked: most of these graphs follow ONNX's rules, and some do not."""
    return helper.make_model(
        helper.make_graph(
            list(nodes),
            "refused",
            [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in inputs.items()],
            [helper.make_tensor_value_info(output or nodes[-1].output[0], TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
        )
    )


def refusal(model: onnx.ModelProto) -> str:
    with pytest.raises(LoweringError) as error:
        lower_tflite(model, {})
    message = str(error.value)
    assert "\n" not in message and "malformed" not in message
    return message


@pytest.mark.parametrize(
    ("kind", "shape"), [(TensorProto.INT8, (1, 4, 6, 3)), (TensorProto.UINT8, (4, 6, 3)), (TensorProto.FLOAT, (4, 6))]
)
def test_an_input_is_a_picture_or_floats_of_four_dimensions(kind: int, shape: Sequence[int]) -> None:
    model = graph(node("Transpose", ["x"], perm=TO_NCHW), inputs={"x": (kind, shape)})
    assert "the input 'x' is not a uint8 image or floats of shape (1, h, w, c)" in refusal(model)


def test_an_output_that_nothing_makes_is_named() -> None:
    model = graph(node("Add", ["x", "x"]), inputs={"x": FLOATS}, output="faces")
    assert refusal(model) == "no node of the graph makes its output 'faces'"


@pytest.mark.parametrize("inputs", [["x"], ["x", "y"], ["x", ""]])
def test_a_value_that_is_missing_is_named_with_its_position(inputs: list[str]) -> None:
    name = inputs[1] if len(inputs) > 1 else ""
    message = refusal(graph(node("Add", inputs), inputs={"x": FLOATS}))
    assert message == f"node 'add' of type Add: input 1 ({name!r}) is not a value here"


@pytest.mark.parametrize("inputs", [["x"], ["x", "x"]])
def test_a_constant_that_is_missing_is_named_with_its_position(inputs: list[str]) -> None:
    message = refusal(graph(node("Sub", inputs), inputs={"x": FLOATS}))
    assert message.startswith("node 'sub' of type Sub: input 1 (") and message.endswith("is not a constant")


@pytest.mark.parametrize("case", ["to integers", "from floats"])
def test_a_cast_is_from_the_image_to_float(case: str) -> None:
    source, to = (IMAGE, TensorProto.INT32) if case == "to integers" else (FLOATS, TensorProto.FLOAT)
    model = graph(node("Cast", ["x"], to=to), inputs={"x": source})
    assert "node 'cast' of type Cast is not from the image to float" in refusal(model)


@pytest.mark.parametrize("shape", [(1,), (3,), (1, 1, 1, 2)])
def test_a_sub_has_one_number_a_channel(shape: tuple[int, ...]) -> None:
    model = graph(node("Sub", ["x", "c"]), inputs={"x": FLOATS}, constants={"c": np.ones(shape, np.float32)})
    assert "node 'sub' of type Sub does not subtract one number per channel" in refusal(model)


@pytest.mark.parametrize("permutation", [[0, 1, 3, 2], [3, 2, 1, 0], [0, 1, 2, 3]])
def test_a_transpose_of_another_kind_is_named_with_its_permutation(permutation: list[int]) -> None:
    model = graph(node("Transpose", ["x"], perm=permutation), inputs={"x": FLOATS})
    assert f"node 'transpose' of type Transpose permutes by {permutation}, which neither goes" in refusal(model)


@pytest.mark.parametrize(
    ("before", "shape", "after"),
    [
        ("Transpose", [1, 4, 4, 4], "Transpose"),  # 64 values out of 48
        ("Transpose", [1, 2, -1, 4], "Transpose"),
        ("Transpose", [1, 8, 6], "Transpose"),
        ("LeakyRelu", [1, 8, 3, 2], "Transpose"),
        ("Transpose", [1, 8, 3, 2], "LeakyRelu"),
    ],
)
def test_a_reshape_rearranges_between_transposes(before: str, shape: list[int], after: str) -> None:
    attributes = {"Transpose": {"perm": [0, 2, 3, 1]}, "LeakyRelu": {"alpha": 0.5}}
    model = graph(
        helper.make_node(before, ["x"], ["a"], "a", **attributes[before]),
        node("Reshape", ["a", "shape"]),
        helper.make_node(after, ["reshape"], ["b"], "b", **attributes[after]),
        inputs={"x": FLOATS},
        constants={"shape": np.array(shape)},
    )
    assert "node 'reshape' of type Reshape does not rearrange NHWC values between Transposes" in refusal(model)


def convolution(kernel: Sequence[int] = (2, 2, 3, 3), **attributes: object) -> onnx.ModelProto:
    constants = {"w": np.ones(kernel, np.float32), "b": np.zeros(kernel[0], np.float32)}
    return graph(node("Conv", ["x", "w", "b"], **attributes), inputs={"x": FLOATS}, constants=constants)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"dilations": [1, 0]}, "is dilated by [1, 0]"),
        ({"dilations": [1, 1 << 31]}, "is dilated by [1, 2147483648]"),
        ({"auto_pad": "SAME_UPPER"}, "leaves its padding to auto_pad 'SAME_UPPER'"),
        ({"strides": [0, 1]}, "has strides [0, 1]"),
        ({"strides": [1, 1 << 31]}, "has strides [1, 2147483648]"),
        ({"pads": [0, 0, 0, 3]}, "pads by [0, 0, 0, 3], which its kernel cannot reach"),
        ({"pads": [-1, 0, 0, 0]}, "pads by [-1, 0, 0, 0], which its kernel cannot reach"),
        ({"kernel": (2, 2, 3)}, "pads by [0, 0, 0, 0], which its kernel cannot reach"),
        ({"kernel": (4, 1, 3, 3), "group": 2}, "has 2 groups; only 1, or one per channel, can be lowered"),
        ({"kernel": (3, 1, 3, 3), "group": 3}, "has 3 groups; only 1, or one per channel, can be lowered"),
    ],
)
def test_a_convolution_of_another_form_is_named_with_it(attributes: dict[str, object], words: str) -> None:
    assert f"node 'conv' of type Conv {words}" in refusal(convolution(**attributes))  # type: ignore[arg-type]


def test_the_widest_stride_and_padding_that_can_be_are_lowered() -> None:
    """TFLite's strides are 32-bit; a kernel of three reaches two zeros outside."""
    for attributes in ({"strides": [1, LARGEST_SIDE]}, {"pads": [2, 2, 2, 2]}):
        assert lower_tflite(convolution(**attributes), {}).operators  # type: ignore[arg-type]
    assert np.iinfo(np.int32).max == LARGEST_SIDE


@pytest.mark.parametrize("source", [IMAGE, FLOATS])
def test_integer_weights_need_an_input_on_a_grid(source: tuple[int, Sequence[int]]) -> None:
    channels = source[1][3]
    model = graph(
        helper.make_node("DequantizeLinear", ["i", "scale", "zero"], ["w"], "w", axis=0),
        helper.make_node("DequantizeLinear", ["j", "scale", "zero"], ["b"], "b", axis=0),
        node("Conv", ["x", "w", "b"]),
        inputs={"x": source},
        constants={
            "i": np.ones((2, channels, 1, 1), np.int8),
            "j": np.ones(2, np.int32),
            "scale": np.ones(2, np.float32),
            "zero": np.zeros(2, np.int8),
        },
    )
    assert refusal(model) == "node 'conv' of type Conv has integer weights but an input without quantisation parameters"


def test_weights_have_no_zero_point() -> None:
    constants = {"w": np.ones(2, np.int8), "scale": np.ones(2, np.float32), "zero": np.array([0, 1], np.int8)}
    model = graph(node("DequantizeLinear", ["w", "scale", "zero"], axis=0), inputs={"x": IMAGE}, constants=constants)
    message = "node 'dequantizelinear' of type DequantizeLinear: a constant's zero point is not 0"
    assert refusal(model) == message


@pytest.mark.parametrize(
    ("source", "axis", "scale"), [(IMAGE, 1, 1.0), (IMAGE, 3, 2.0), (IMAGE, None, 1.0), (FLOATS, 3, 1.0)]
)
def test_the_image_is_dequantised_by_its_mean_alone(
    source: tuple[int, Sequence[int]], axis: int | None, scale: float
) -> None:
    channels = source[1][3]
    constants = {"scale": np.full(channels, scale, np.float32), "mean": np.full(channels, 9, np.uint8)}
    attributes = {} if axis is None else {"axis": axis}
    model = graph(
        node("DequantizeLinear", ["x", "scale", "mean"], **attributes), inputs={"x": source}, constants=constants
    )
    assert "of type DequantizeLinear is not the mean subtraction of the image" in refusal(model)


def test_a_relu_needs_a_convolution_that_nobody_else_reads() -> None:
    words = "node 'relu' of type Relu does not follow a convolution that it can be fused with"
    assert refusal(graph(node("LeakyRelu", ["x"]), node("Relu", ["leakyrelu"]), inputs={"x": FLOATS})) == words
    shared = convolution()
    shared.graph.node.extend([node("Relu", ["conv"]), node("Add", ["conv", "relu"])])
    assert refusal(shared) == words


def test_an_add_of_two_shapes_is_named_with_them() -> None:
    model = graph(node("Add", ["x", "y"]), inputs={"x": FLOATS, "y": (TensorProto.FLOAT, (1, 1, 1, 2))})
    assert refusal(model) == "node 'add' of type Add adds shapes (1, 4, 6, 2) and (1, 1, 1, 2)"


@pytest.mark.parametrize("axis", [0, 2, 3])
def test_a_concat_of_values_joins_channels(axis: int) -> None:
    model = graph(node("Concat", ["x", "x"], axis=axis), inputs={"x": FLOATS})
    assert refusal(model) == "node 'concat' of type Concat does not join channels"


def quantised(value: str, source: str, scale: float) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """A pair that puts `source` on a grid of its own."""
    constants = {f"{value}.scale": np.float32(scale), f"{value}.zero": np.uint8(3)}
    pair = [
        helper.make_node("QuantizeLinear", [source, *constants], [f"{value}.integer"], f"{value}.integer"),
        helper.make_node("DequantizeLinear", [f"{value}.integer", *constants], [value], value),
    ]
    return pair, {name: np.asarray(number) for name, number in constants.items()}


def test_a_concat_of_integers_has_one_grid() -> None:
    """Else TFLite would have to scale one part anew, which ONNX does not."""
    (first, quant), (second, other) = quantised("a", "x", 0.5), quantised("b", "y", 0.25)
    concat = node("Concat", ["a", "b"], axis=1)
    inputs = {"x": FLOATS, "y": FLOATS}
    model = graph(*first, *second, concat, inputs=inputs, constants={**quant, **other})
    assert refusal(model) == "node 'concat' of type Concat joins values with different quantisation parameters"
    alike = graph(*first, *second, concat, inputs=inputs, constants={**quant, **quantised("b", "y", 0.5)[1]})
    lowered = lower_tflite(alike, {})
    assert {t.quantisation.scales for t in lowered.tensors if t.quantisation is not None} == {(0.5,)}


@pytest.mark.parametrize(
    ("source", "axis", "dtype"), [(IMAGE, 3, np.uint8), (IMAGE, 0, np.uint8), (IMAGE, 1, np.int8), (FLOATS, 1, "f4")]
)
def test_a_border_is_of_bytes_and_beside_the_image(source: tuple[int, Sequence[int]], axis: int, dtype: str) -> None:
    model = graph(
        node("Concat", ["edge", "x"], axis=axis), inputs={"x": source}, constants={"edge": np.ones(source[1], dtype)}
    )
    assert refusal(model) == "node 'concat' of type Concat does not put a border of bytes around the image"


def test_a_border_is_not_put_around_what_is_floats_by_then() -> None:
    """It was left out once, and the border alone came back."""
    bytes_ = np.ones((1, 1, 6, 2), np.uint8)
    model = graph(node("Concat", ["edge", "x"], axis=1), inputs={"x": FLOATS}, constants={"edge": bytes_})
    assert refusal(model) == "node 'concat' of type Concat does not put a border of bytes around the image"


NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def resize(scales: Sequence[float], inputs: int = 3, **form: str) -> onnx.ModelProto:
    return graph(
        node("Resize", ["x", "", "scales", ""][:inputs], **{**NEAREST, **form}),
        inputs={"x": FLOATS},
        constants={"scales": np.array(scales, np.float32)},
    )


@pytest.mark.parametrize(
    "model",
    [
        resize([1, 1, 2.5, 2]),
        resize([1, 1, 2, 2.5]),
        resize([2, 1, 2, 2]),
        resize([1, 2, 2, 2]),
        resize([2, 2, 2, 2]),
        resize([1, 1, 2]),
        resize([1, 1, 2, 2], inputs=4),
        resize([1, 1, 2, 2], mode="linear"),
        resize([1, 1, 2, 2], coordinate_transformation_mode="half_pixel"),
        resize([1, 1, 2, 2], nearest_mode="ceil"),
    ],
)
def test_a_resize_is_by_whole_factors_and_repeats_its_pixels(model: onnx.ModelProto) -> None:
    words = "node 'resize' of type Resize is not upsampling by a whole factor, by the nearest pixel or bilinear"
    assert refusal(model) == words


@pytest.mark.parametrize("height", [1 << 28, 0])
def test_a_value_too_large_for_tflite_or_without_pixels_is_named_with_its_shape(height: int) -> None:
    """TFLite's sides are 32-bit: 8 · 2²⁸ is one too many."""
    model = graph(node("Transpose", ["x"], perm=[0, 3, 2, 1]), inputs={"x": (TensorProto.FLOAT, (1, 8 * height, 1, 2))})
    assert refusal(model) == f"the value 'x' would have the shape (1, {8 * height}, 1, 2)"


def pool(kind: str = "MaxPool", **attributes: object) -> onnx.ModelProto:
    return graph(node(kind, ["x"], **{"kernel_shape": [2, 2], **attributes}), inputs={"x": FLOATS})


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (pool(dilations=[1, 2]), "of type MaxPool is dilated by [1, 2]"),
        (pool(strides=[1, 0]), "of type MaxPool has strides [1, 0]"),
        (pool(pads=[0, 0, 2, 0]), "of type MaxPool pads by [0, 0, 2, 0], which its kernel cannot reach"),
        (pool(auto_pad="SAME_UPPER"), "of type MaxPool leaves its padding to auto_pad 'SAME_UPPER'; write it out"),
        (pool(kernel_shape=[2]), "of type MaxPool pads by [0, 0, 0, 0], which its kernel cannot reach"),
        (pool("AveragePool", dilations=[2, 2]), "of type AveragePool is dilated by [2, 2]"),
        (
            pool("AveragePool", pads=[1, 1, 0, 0]),
            "of type AveragePool pads by [(1, 0), (1, 0)], which is not how TFLite's SAME pads",
        ),
        (
            pool("AveragePool", pads=[0, 1, 0, 0], strides=[3, 3], ceil_mode=1, count_include_pad=1),
            "of type AveragePool counts padding in some windows and not in others",
        ),
    ],
)
def test_a_pool_of_another_form_is_named_with_it(model: onnx.ModelProto, words: str) -> None:
    assert words in refusal(model)


def test_a_pool_gives_no_places() -> None:
    pool = helper.make_node("MaxPool", ["x"], ["values", "places"], "pool", kernel_shape=[2, 2])
    assert "node 'pool' of type MaxPool also gives the places" in refusal(graph(pool, inputs={"x": FLOATS}))


@pytest.mark.parametrize(
    ("bounds", "words"), [((0.0, 4.0), "0…4"), ((-1.0, 6.0), "-1…6"), ((-1.0, 1.0), "-1…1"), ((3.0, 6.0), "3…6")]
)
def test_a_clip_that_no_activation_of_tflite_is(bounds: tuple[float, float], words: str) -> None:
    """Left out, values would leave the network that the trained one never had."""
    model = convolution((2, 2, 1, 1))
    constants = {name: np.float32(number) for name, number in zip(("low", "high"), bounds, strict=True)}
    model.graph.node.append(node("Clip", ["conv", "low", "high"]))
    model.graph.output[0].name = "clip"
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items())
    assert f"node 'clip' of type Clip clips to {words}; only from 0" in refusal(model)


def test_a_relu_of_what_leaves_the_network_is_not_fused_away() -> None:
    model = convolution((2, 2, 1, 1))
    model.graph.node.append(node("Relu", ["conv"]))
    assert "node 'relu' of type Relu does not follow a convolution that it can be fused with" in refusal(model)


@pytest.mark.parametrize(
    ("kind", "inputs", "constant", "words"),
    [
        ("Mul", ["x", "c"], np.ones((1, 4, 1, 1)), "does not scale by one finite number, or one per channel"),
        ("Mul", ["x", "c"], np.ones(2), "does not scale by one finite number, or one per channel"),
        ("Mul", ["c", "x"], np.array(np.inf), "does not scale by one finite number, or one per channel"),
        ("Div", ["x", "c"], np.zeros(1), "does not scale by one finite number, or one per channel"),
        ("Div", ["c", "x"], np.ones(1), "does not scale by one finite number, or one per channel"),
        ("Mul", ["x", "x"], np.ones(1), "does not scale by one finite number, or one per channel"),
        ("Add", ["x", "c"], np.ones((2, 4, 1)), "does not add one number, or one per channel"),
    ],
)
def test_a_constant_is_one_number_or_one_a_channel(
    kind: str, inputs: list[str], constant: np.ndarray, words: str
) -> None:
    """Width 2 is no channel: ONNX counts axes from the back."""
    model = graph(node(kind, inputs), inputs={"x": FLOATS}, constants={"c": constant.astype(np.float32)})
    assert refusal(model) == f"node '{kind.lower()}' of type {kind} {words}"


@pytest.mark.parametrize("sizes", [[1, 2], [2], [0, 2], [-1, 3], [1, 1, 1]])
def test_a_split_gives_all_of_what_it_reads(sizes: list[int]) -> None:
    split = helper.make_node("Split", ["x", "sizes"], ["a", "b"], "split", axis=1)
    message = refusal(graph(split, inputs={"x": FLOATS}, constants={"sizes": np.array(sizes)}, output="a"))
    assert message == f"node 'split' of type Split splits 2 into {sizes}"


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps", "words"),
    [
        ([0, 0], [1, 1], [1, 2], [1, 1], "does not take neighbours along one axis"),
        ([0], [2], [1], [2], "does not take neighbours along one axis"),
        ([1], [-3], [2], [-1], "does not take neighbours along one axis"),
        ([0], [1], [0], [1], "does not take neighbours along one axis"),
        ([0], [1], [-4], [1], "cuts along axis -4"),
        ([0], [1], [4], [1], "cuts along axis 4"),
    ],
)
def test_a_slice_is_of_neighbours_along_one_axis(
    starts: list[int], ends: list[int], axes: list[int], steps: list[int], words: str
) -> None:
    constants = {name: np.array(v) for name, v in zip("seat", (starts, ends, axes, steps), strict=True)}
    message = refusal(graph(node("Slice", ["x", *"seat"]), inputs={"x": FLOATS}, constants=constants))
    assert f"node 'slice' of type Slice {words}" in message


def test_a_slice_of_nothing_is_named_with_its_shape() -> None:
    constants = {"s": np.array([1]), "e": np.array([1]), "a": np.array([2])}
    message = refusal(graph(node("Slice", ["x", *"sea"]), inputs={"x": FLOATS}, constants=constants))
    assert message == "the value 'slice' would have the shape (1, 0, 6, 2)"


@pytest.mark.parametrize(("groups", "scales", "words"), [(4, 2, "normalises 2 channels in 4 groups"),
                                                         (0, 2, "normalises 2 channels in 0 groups"),
                                                         (1, 3, "has scales of shape (3,)")])  # fmt: skip
def test_groups_divide_channels(groups: int, scales: int, words: str) -> None:
    constants = {name: np.ones(scales, np.float32) for name in "sb"}
    model = graph(
        node("GroupNormalization", ["x", *"sb"], num_groups=groups), inputs={"x": FLOATS}, constants=constants
    )
    assert f"node 'groupnormalization' of type GroupNormalization {words}" in refusal(model)


def test_integers_are_read_by_the_scale_that_made_them() -> None:
    """Read by another, every value of the layer would be off by the ratio, without a word."""
    pair, quant = quantised("a", "x", 0.5)
    pair[1].input[1] = "other"
    model = graph(*pair, node("LeakyRelu", ["a"]), inputs={"x": FLOATS}, constants={**quant, "other": np.float32(0.25)})
    assert "node 'a' of type DequantizeLinear has another scale or zero point than what made" in refusal(model)


def test_bytes_of_the_image_are_not_quantised_again() -> None:
    pair, quant = quantised("a", "x", 0.5)
    assert "quantises the image's bytes, which are integers already" in refusal(
        graph(*pair, node("LeakyRelu", ["a"]), inputs={"x": IMAGE}, constants=quant)
    )


def test_a_constant_of_a_type_that_is_not_lowered_is_named() -> None:
    model = graph(node("Sub", ["x", "mean"]), inputs={"x": FLOATS}, constants={"mean": np.ones(2, np.float64)})
    assert refusal(model).startswith("the value 'mean' has the dtype float64; only 32-bit floats, 32-bit integers")


def test_a_constant_that_contradicts_itself_is_refused() -> None:
    """Its numbers are in the field of another type."""
    constants = {"scale": np.ones((), np.float32)}
    model = graph(node("QuantizeLinear", ["image", "scale"]), inputs={"image": FLOATS}, constants=constants)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.append(1.0)
    tensor.data_type = TensorProto.INT16
    with pytest.raises(LoweringError, match=r"the graph is malformed .*INT16 for float_data"):
        lower_tflite(model, {})
