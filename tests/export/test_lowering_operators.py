"""Every operation by itself: TFLite and OpenVINO compute what ONNX Runtime computes, in FP32."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert.interpreter import OpResolverType
from hypothesis import given, settings
from onnx import TensorProto, helper, numpy_helper
from oracles.backends import NHWC, assert_exact, between_transposes, by_litert, by_onnxruntime, names, node
from oracles.networks import RESIDUAL_FORMS, ResidualForm, residual_network

from retinaface_edge.export.lower.tflite import LoweringError, lower_tflite

CLIPS: list[tuple[list[str], dict[str, float], str]] = [
    (["low", "six"], {}, "CONV_2D"),
    (["low", "most"], {}, "CONV_2D"),
    (["low"], {}, "CONV_2D"),
]


@pytest.mark.parametrize(("bounds", "attributes", "operator"), CLIPS)
def test_a_clip_from_zero_is_fused(bounds: list[str], attributes: dict[str, float], operator: str) -> None:
    constants = {
        "w": 4.0 * np.eye(3, dtype=np.float32)[..., None, None],
        "b": np.ones(3, np.float32),
        "low": np.float32(0.0),
        "six": np.float32(6.0),
        "most": np.finfo(np.float32).max,
    }
    used = {name: constants[name] for name in ("w", "b", *bounds)}
    model = between_transposes([node("Conv", ["x", "w", "b"]), node("Clip", ["conv", *bounds])], (6, 5, 3), used)
    assert names(assert_exact(model)) == [operator]


def test_a_clip_of_an_old_exporter_has_its_bounds_as_attributes() -> None:
    constants = {"w": 4.0 * np.eye(3, dtype=np.float32)[..., None, None], "b": np.ones(3, np.float32)}
    nodes = [node("Conv", ["x", "w", "b"]), node("Clip", ["conv"], min=0.0, max=6.0)]
    assert names(assert_exact(between_transposes(nodes, (6, 5, 3), constants, opset=9))) == ["CONV_2D"]


@pytest.mark.parametrize("after", ["", "Relu", "Clip"])
def test_a_sum_takes_its_activation_along(after: str) -> None:
    bounds = ["low", "six"] if after == "Clip" else []
    constants = (
        {"low": np.float32(0.0), "six": np.float32(6.0), "a": np.float32(3.0)} if bounds else {"a": np.float32(3.0)}
    )
    nodes = [node("Mul", ["x", "a"]), node("Add", ["mul", "x"])]
    nodes += [node(after, ["add", *bounds], "activation")] if after else []
    lowered = assert_exact(between_transposes(nodes, (6, 5, 3), constants))
    assert names(lowered) == ["MUL", "ADD"]


@pytest.mark.parametrize("kind", ["Mul", "Div"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 1), (1, 3, 1, 1)])
@pytest.mark.parametrize("rectified", [False, True])
def test_a_constant_factor_goes_into_the_convolution(kind: str, shape: tuple[int, ...], rectified: bool) -> None:
    """SCRFD multiplies its boxes by one learnt number per level."""
    random = np.random.default_rng(0)
    constants = {
        "w": random.normal(size=(3, 3, 1, 1)).astype(np.float32),
        "b": random.normal(size=3).astype(np.float32),
        "factor": random.normal(size=shape).astype(np.float32),
    }
    nodes = [node("Conv", ["x", "w", "b"]), node(kind, ["conv", "factor"], "scaled")]
    nodes += [node("Relu", ["scaled"])] if rectified else []
    assert names(assert_exact(between_transposes(nodes, (6, 5, 3), constants))) == ["CONV_2D"]
    assert names(assert_exact(between_transposes([node(kind, ["x", "factor"])], (6, 5, 3), constants))) == ["MUL"]


def test_a_factor_that_others_do_not_see_is_not_folded() -> None:
    constants = {"w": np.ones((3, 3, 1, 1), np.float32), "b": np.ones(3, np.float32), "factor": np.float32(-0.5)}
    nodes = [node("Conv", ["x", "w", "b"]), node("Mul", ["factor", "conv"]), node("Add", ["mul", "conv"])]
    assert names(assert_exact(between_transposes(nodes, (6, 5, 3), constants))) == ["CONV_2D", "MUL", "ADD"]


NEAREST = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
COORDINATES = ("asymmetric", "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners")


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("rounding", NEAREST)
def test_an_enlargement_is_lowered_where_it_repeats_pixels_and_refused_elsewhere(
    coordinates: str, rounding: str
) -> None:
    picture = np.arange(5 * 4, dtype=np.float32).reshape(1, 5, 4, 1)
    for factor in (1, 2, 3, 4, 5):
        resize = node("Resize", ["x", "", "scales"], mode="nearest", nearest_mode=rounding,
                      coordinate_transformation_mode=coordinates)  # fmt: skip
        scales = np.array([1, 1, factor, factor], np.float32)
        model = between_transposes([resize], (5, 4, 1), {"scales": scales})
        repeated = np.repeat(np.repeat(picture, factor, axis=1), factor, axis=2)
        repeats = np.array_equal(by_onnxruntime(model, picture)[0], repeated)
        try:
            lowered = lower_tflite(model, {})
        except LoweringError:
            # Nothing that published networks use is refused: these two have no exact rule of their own.
            assert not repeats or coordinates in ("pytorch_half_pixel", "align_corners") or factor == 1
        else:
            assert repeats, factor
            np.testing.assert_array_equal(by_litert(lowered, picture, OpResolverType.AUTO), repeated)


@pytest.mark.parametrize("coordinates", COORDINATES)
def test_a_bilinear_enlargement_is_lowered_with_the_coordinates_that_tflite_has(coordinates: str) -> None:
    for factors in ((1, 2), (2, 2), (3, 5)):
        resize = node("Resize", ["x", "", "scales"], mode="linear", coordinate_transformation_mode=coordinates)
        model = between_transposes([resize], (5, 4, 3), {"scales": np.array([1, 1, *factors], np.float32)})
        if coordinates not in ("align_corners", "half_pixel", "pytorch_half_pixel"):
            with pytest.raises(LoweringError, match="node 'resize' of type Resize is not upsampling by a whole"):
                lower_tflite(model, {})
            continue
        assert names(assert_exact(model)) == ["RESIZE_BILINEAR"]


@pytest.mark.parametrize("empty", [True, False])
def test_an_enlargement_may_be_given_by_its_size(empty: bool) -> None:
    """As SCRFD's exporter does, with empty scales beside it."""
    constants = {"sizes": np.array([1, 2, 9, 8], np.int64), "none": np.zeros(0, np.float32)}
    inputs = ["x", "none", "none", "sizes"] if empty else ["x", "", "", "sizes"]
    resize = node("Resize", inputs, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    used = constants if empty else {"sizes": constants["sizes"]}
    assert names(assert_exact(between_transposes([resize], (3, 4, 2), used))) == ["RESIZE_NEAREST_NEIGHBOR"]


def test_an_upsample_of_an_old_exporter_repeats_pixels() -> None:
    constants = {"scales": np.array([1, 1, 2, 3], np.float32)}
    model = between_transposes([node("Upsample", ["x", "scales"], mode="nearest")], (3, 4, 2), constants, opset=9)
    assert names(assert_exact(model)) == ["RESIZE_NEAREST_NEIGHBOR"]


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_parts_of_a_split_and_a_slice_are_where_they_were(axis: int) -> None:
    parts = helper.make_node("Split", ["x", "sizes"], ["a", "b"], "split", axis=axis)
    constants = {
        "sizes": np.array([1, 3]),
        "start": np.array([-3]),
        "end": np.array([2**40]),
        "axis": np.array([axis]),
    }
    cut = node("Slice", ["x", "start", "end", "axis"])
    nodes = [parts, cut, node("Add", ["slice", "b"])]
    assert names(assert_exact(between_transposes(nodes, (4, 4, 4), constants))) == ["SLICE", "SLICE", "SLICE", "ADD"]


def test_a_split_without_sizes_is_even() -> None:
    parts = helper.make_node("Split", ["x"], ["a", "b", "c"], "split", axis=1, num_outputs=3)
    model = between_transposes([parts, node("Concat", ["c", "a", "b"], axis=1)], (4, 3, 7))
    lowered = assert_exact(model)
    assert [t.shape[3] for t in lowered.tensors if t.name in "abc"] == [3, 3, 1]


@pytest.mark.parametrize("shape", [(1, -1, 4), (0, -1, 2), (20, 2), (1, 2, 5, 4)])
def test_an_output_may_be_rearranged(shape: tuple[int, ...]) -> None:
    graph = helper.make_graph(
        [node("LeakyRelu", ["image"]), node("Transpose", ["leakyrelu"], perm=[0, 3, 1, 2]),
         node("Relu6Free", ["transpose"]), node("Transpose", ["relu6free"], "back", **NHWC),
         helper.make_node("Reshape", ["back", "shape"], ["out"], "out")],
        "rearranged",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 5, 2, 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(shape), "shape")],
    )  # fmt: skip
    graph.node[2].op_type = "LeakyRelu"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert_exact(model)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("form", ["pytorch", "attribute", "each channel"])
def test_group_normalisation_is_that_of_onnx(groups: int, form: str) -> None:
    random = np.random.default_rng(0)
    height, width, channels = 40, 24, 6
    each = {"scale": random.normal(size=channels), "shift": random.normal(size=channels)}
    constants = {name: numbers.astype(np.float32) for name, numbers in each.items()}
    if form == "pytorch":
        constants = {
            "ones": random.normal(size=groups).astype(np.float32),
            "zeros": random.normal(size=groups).astype(np.float32),
            "groups": np.array([0, groups, -1]),  # type: ignore[dict-item]
            "back": np.array([1, channels, height, width]),  # type: ignore[dict-item]
            **{name: numbers.reshape(channels, 1, 1) for name, numbers in constants.items()},
        }
        nodes = [
            node("Reshape", ["x", "groups"], "grouped"),
            node("InstanceNormalization", ["grouped", "ones", "zeros"], "normal", epsilon=1e-4),
            node("Reshape", ["normal", "back"], "normalised"),
            node("Mul", ["normalised", "scale"], "scaled"),
            node("Add", ["scaled", "shift"], "shifted"),
            node("Relu", ["shifted"]),
        ]
    elif form == "each channel":
        nodes = [node("InstanceNormalization", ["x", "scale", "shift"])]
    else:
        nodes = [node("GroupNormalization", ["x", "scale", "shift"], num_groups=groups)]
    opset = 21 if form == "attribute" else 18
    model = between_transposes(nodes, (height, width, channels), constants, opset=opset)
    image = (5.0 + 3.0 * random.normal(size=(1, height, width, channels))).astype(np.float32)
    assert_exact(model, image)


@settings(max_examples=40)
@given(form=RESIDUAL_FORMS)
def test_residual_networks_of_any_form_are_lowered_exactly(form: ResidualForm) -> None:
    image = np.random.default_rng(form.seed).integers(0, 256, (1, *form.size, 3), np.uint8)
    assert_exact(residual_network(form), image, openvino_too=form.seed % 8 == 0)
