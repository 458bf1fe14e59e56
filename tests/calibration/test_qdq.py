"""The INT8 model: what quantising may not change, and what it must hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from retinaface_edge.calibration import observers
from retinaface_edge.calibration.calibrate import Calibration, calibrate
from retinaface_edge.calibration.dataset.image_set import CalibrationError, ImageSet, image_folder, image_set
from retinaface_edge.calibration.dataset.synthetic_scenes import scenes
from retinaface_edge.calibration.graph.session import run
from retinaface_edge.calibration.observers import Observation, observe
from retinaface_edge.calibration.qdq import QuantisationError, quantise
from retinaface_edge.calibration.range_estimators import ESTIMATORS, MOST_LOSS, Range, before_activation
from retinaface_edge.runtime import Spec
from retinaface_edge.runtime.ops.postprocess import QuantParams


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_equalisation_changes_weights_but_not_results(
    calibration: Calibration, fp32: onnx.ModelProto, spec: Spec, photographs: list[np.ndarray]
) -> None:
    before, after = constants(fp32), constants(calibration.model)
    changed = [name for name, array in before.items() if not np.array_equal(array, after[name])]
    assert len(changed) > 60
    for image in photographs:
        for ours, theirs in zip(run(calibration.model, spec, image), run(fp32, spec, image), strict=True):
            assert np.abs(ours - theirs).max() <= 2e-4


def test_equalised_observations_are_those_of_the_equalised_model(
    calibration: Calibration, fp32: onnx.ModelProto, spec: Spec, calibration_images: ImageSet
) -> None:
    """The ranges were derived without running the equalised model; running it must give them."""
    names = ["backbone.stem.activation", "backbone.stages.1.2.pointwise.activation", "context.0.conv5_1.activation"]
    seen = observe(calibration.model, spec, names, calibration_images).tensors
    for name in names:
        expected = ESTIMATORS[calibration.recipe.estimator(name)](seen[name])
        assert calibration.ranges[name].low == pytest.approx(expected.low, rel=1e-3, abs=1e-5)
        assert calibration.ranges[name].high == pytest.approx(expected.high, rel=1e-3, abs=1e-5)


def test_a_large_network_is_sampled_at_fewer_positions_and_its_extremes_stay_exact(
    fp32: onnx.ModelProto, spec: Spec, calibration_images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["backbone.stem.activation", "backbone.stages.1.2.pointwise.activation", "context.0.conv5_1.activation"]
    two = replace(calibration_images, inputs=calibration_images.inputs[:2])
    full = observe(fp32, spec, names, two).tensors
    monkeypatch.setattr(observers, "MOST_VALUES", 5000)
    fewer = observe(fp32, spec, names, two).tensors
    assert sum(tensor.sample[0].size for tensor in fewer.values()) <= 5000
    assert sum(tensor.sample[0].size for tensor in full.values()) > 5000
    for name in names:
        assert np.array_equal(fewer[name].low, full[name].low)
        assert np.array_equal(fewer[name].high, full[name].high)
        assert (fewer[name].sample.max(axis=2) <= full[name].high).all()


def test_every_convolution_has_int8_weights_near_its_own(calibration: Calibration, int8: onnx.ModelProto) -> None:
    floats, integers = constants(calibration.model), constants(int8)
    convolutions = [node for node in calibration.model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 56
    for node in convolutions:
        name = node.input[1]
        weight, scale = integers[f"{name}.integers"], integers[f"{name}.scale"]
        assert weight.dtype == np.int8
        assert weight.min() >= -127
        assert scale.shape == (len(weight),)
        assert not integers[f"{name}.zero_point"].any()
        # Rounded together, a weight may move further than to its nearest integer, but not far.
        error = np.abs(weight * scale[:, None, None, None] - floats[name]) / scale[:, None, None, None]
        assert error.max() < 40
        assert np.median(error) < 0.6


def test_the_image_enters_exactly(int8: onnx.ModelProto, spec: Spec) -> None:
    first = int8.graph.node[0]
    stored = constants(int8)
    assert first.op_type == "DequantizeLinear"
    assert stored[first.input[1]].tolist() == [1.0, 1.0, 1.0]
    assert tuple(stored[first.input[2]]) == spec.mean


def test_parts_of_a_concatenation_share_its_grid(calibration: Calibration) -> None:
    for node in calibration.model.graph.node:
        if node.op_type == "Concat":
            assert len({calibration.quant_params[name] for name in (*node.input, node.output[0])}) == 1


def test_activation_multipliers_are_exact_in_every_kernel(calibration: Calibration) -> None:
    """XNNPACK multiplies by the scales' ratio, and by that times the slope, in steps of 1/256."""
    checked = 0
    for node in calibration.model.graph.node:
        if node.op_type == "LeakyRelu":
            before, after = (calibration.quant_params[name] for name in (node.input[0], node.output[0]))
            for multiplier in (before.scale / after.scale, 0.1 * before.scale / after.scale):
                assert abs(multiplier * 256 - round(multiplier * 256)) < 1e-2
            checked += 1
    assert checked == 38


@given(st.floats(-1e4, 0.0), st.floats(0.0, 1e4))
def test_a_grid_holds_its_range_and_an_exact_zero(low: float, high: float) -> None:
    quant = Range(low, high, "any").quant
    assert 0 <= quant.zero_point <= 255
    least, most = (0 - quant.zero_point) * quant.scale, (255 - quant.zero_point) * quant.scale
    assert least <= low + 0.51 * quant.scale
    assert most >= high - 0.51 * quant.scale


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 30.0), st.floats(0.05, 3.0))
def test_the_range_before_an_activation_beats_min_and_max(seed: int, reach: float, spread: float) -> None:
    """Measured after the activation, on the values that it was chosen for."""
    random = np.random.default_rng(seed)
    values = (random.normal(size=(4, 8, 64)) * spread - random.random() * reach).astype(np.float32)
    wanted = np.where(values > 0, values, 0.1 * values)
    after = Range(min(float(wanted.min()), 0.0), max(float(wanted.max()), 0.1), "test")
    seen = Observation(values.min(axis=2), values.max(axis=2), values)

    def error(quant: QuantParams) -> float:
        def rounded(x: np.ndarray, g: QuantParams) -> np.ndarray:
            return (np.clip(np.rint(x / g.scale + g.zero_point), 0, 255) - g.zero_point) * g.scale

        got = rounded(values, quant)
        got = rounded(np.where(got > 0, got, 0.1 * got), after.quant)
        return float(((got - wanted) ** 2).mean())

    plain = Range(min(float(values.min()), 0.0), max(float(values.max()), 0.0), "min-max").quant
    # Ratios move in steps of 4 %, the plain range is free: a little worse is possible where clipping gains nothing.
    # Beyond that, some error is paid for kernels that agree.
    bound = 1.25 * error(plain) + after.quant.scale**2 / 12
    assert error(before_activation(seen, after, 0.1).quant) <= MOST_LOSS * bound


@pytest.mark.parametrize(("estimator", "heeds"), [("min-max", True), ("mean-extremes", False)])
def test_the_range_before_an_activation_heeds_values_that_the_sample_has_missed(estimator: str, heeds: bool) -> None:
    """Faces cover few positions of a feature map; their large negative values are among the extremes alone."""
    random = np.random.default_rng(0)
    values = random.normal(size=(20, 8, 64)).astype(np.float32)
    after = Range(-2.0, 5.0, estimator)
    lows, highs = values.min(axis=2), values.max(axis=2)
    without, with_faces = (
        before_activation(Observation(low, highs, values), after, 0.1) for low in (lows, np.full_like(lows, -20.0))
    )
    assert (with_faces.low < 1.3 * without.low) == heeds
    assert with_faces.low == without.low or heeds


def test_calibration_depends_on_the_images_alone(
    fp32: onnx.ModelProto, spec: Spec, calibration: Calibration, calibration_images: ImageSet
) -> None:
    again = calibrate(fp32, spec, calibration_images, calibration.recipe)
    assert again.ranges == calibration.ranges
    assert image_set(spec, scenes(24), "again").digest == calibration_images.digest
    assert image_set(spec, scenes(23), "fewer").digest != calibration_images.digest


def test_a_graph_that_is_not_ours_is_refused(fp32: onnx.ModelProto, spec: Spec, calibration: Calibration) -> None:
    other = onnx.ModelProto()
    other.CopyFrom(fp32)
    del other.graph.node[0]
    with pytest.raises(QuantisationError, match="does not begin with the mean subtraction"):
        quantise(replace(calibration, model=other), spec)


def test_unreadable_calibration_images_are_named_and_skipped(tmp_path, spec: Spec) -> None:  # type: ignore[no-untyped-def]
    from PIL import Image

    Image.fromarray(scenes(1)[0]).save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"not a picture")
    said: list[str] = []
    images = image_folder(tmp_path, 10).read(spec, said.append)
    assert len(images.inputs) == 1
    assert images.skipped == ("bad.jpg",)
    assert len(said) == 1
    assert "bad.jpg" in said[0]
    (tmp_path / "good.png").unlink()
    with pytest.raises(CalibrationError, match="holds no readable picture"):
        image_folder(tmp_path, 10).read(spec, said.append)
    (tmp_path / "bad.jpg").unlink()
    with pytest.raises(CalibrationError, match="holds no picture among 0 files"):
        image_folder(tmp_path, 10).read(spec, said.append)
