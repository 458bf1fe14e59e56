"""Recipes, targets, and what a build says of its calibration images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinaface_edge.calibration.calibrate import Calibration, calibrate
from retinaface_edge.calibration.dataset.checks import judge
from retinaface_edge.calibration.dataset.image_set import ImageSet, image_set
from retinaface_edge.calibration.dataset.synthetic_scenes import scenes
from retinaface_edge.calibration.gptq import round_together
from retinaface_edge.calibration.layer_report import format_fits, layer_fits, sensitivities, signal_to_noise
from retinaface_edge.calibration.observers import Observation
from retinaface_edge.calibration.qdq import quantise
from retinaface_edge.calibration.range_estimators import ESTIMATORS, Range
from retinaface_edge.calibration.recipe import PRESETS, Recipe, RecipeError, for_branch, read_recipe, recipe_from_json
from retinaface_edge.calibration.roles import RETINAFACE, Role
from retinaface_edge.export import stage_cache as cache
from retinaface_edge.export.checkpoints.checkpoint import Checkpoint
from retinaface_edge.export.graph.export import run, to_onnx
from retinaface_edge.export.lower.tflite import lower_tflite
from retinaface_edge.export.models.deploy import Deploy
from retinaface_edge.export.precision_search import DriftError, search
from retinaface_edge.runtime import Spec, SpecError
from retinaface_edge.runtime.host.targets import TARGETS, Processor, choose_target, read_target, this_processor
from retinaface_edge.runtime.ops.iou import detection_drift


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_whole_and_survive_json(name: str, tmp_path: Path) -> None:
    preset = read_recipe(name)
    assert preset.name == name
    (tmp_path / "mine.json").write_text(json.dumps({**preset.to_json(), "name": "mine"}))
    assert read_recipe(str(tmp_path / "mine.json")) == replace(preset, name="mine")


def test_a_role_is_the_layers_that_a_network_has_for_it(fp32: onnx.ModelProto) -> None:
    """Presets name roles alone, so they mean the same for a network whose modules have other names."""
    for name in PRESETS:
        preset = read_recipe(name)
        patterns = (*preset.float_layers, *preset.activations_of)
        assert patterns and all(pattern.startswith("role:") for pattern in patterns)
    accurate = read_recipe("accurate")
    ours = accurate.resolved(RETINAFACE)
    assert ours.float_layers == ("backbone.stem", "backbone.stages.0.*")
    by_role = {"backbone.stem": "mean-extremes", "backbone.stages.0.*": "mean-extremes"}
    assert dict(ours.activations_of) == {**by_role, "pyramid.*": "extremes-90", "context.*": "extremes-90"}
    assert ours.resolved({}) == ours
    for tensor in ("backbone.stem.activation", "backbone.stages.0.0.pointwise.activation"):
        assert ours.estimator(tensor) == "mean-extremes"
    assert ours.estimator("backbone.stages.1.0.pointwise.activation") == "min-max"
    assert ours.estimator("context.0.conv3x3.activation") == "extremes-90"
    other = accurate.resolved({Role.STEM: ("conv1",)})
    assert (other.is_float("conv1"), other.is_float("backbone.stem"), other.estimator("conv1.activation")) == (
        True,
        False,
        "mean-extremes",
    )
    layers = [node.name for node in fp32.graph.node if node.op_type == "Conv"]
    for role, patterns in RETINAFACE.items():
        recipe = replace(accurate, float_layers=tuple(patterns))
        assert any(recipe.is_float(layer) for layer in layers), role


def test_the_branch_is_integers_and_keeps_the_ranges_of_turned_heads() -> None:
    recipe = for_branch(read_recipe("accurate"))
    assert not recipe.is_float("backbone.stem")
    # Four batches in twenty have turned heads, which reach three times as far.
    high = np.array([1.0] * 16 + [3.0] * 4, np.float32)[:, None]
    seen = Observation(-high, high, np.zeros((20, 1, 1), np.float32))
    assert ESTIMATORS[recipe.estimator("encoder.0.activation")](seen).high == pytest.approx(3.0)


def test_the_fast_preset_leaves_nothing_float(fp32: onnx.ModelProto, spec: Spec, calibration_images: ImageSet) -> None:
    calibration = calibrate(fp32, spec, calibration_images, read_recipe("fast"))
    assert lower_tflite(quantise(calibration, spec), calibration.quant_params).float_operators == 0


def test_the_accurate_preset_keeps_exactly_its_layers_float(
    fp32: onnx.ModelProto, spec: Spec, calibration_images: ImageSet, photographs: list[np.ndarray]
) -> None:
    accurate = read_recipe("accurate").resolved(RETINAFACE)
    calibration = calibrate(fp32, spec, calibration_images, accurate)
    quantised = quantise(calibration, spec)
    integers = {t.name.removesuffix(".weight.integers") for t in quantised.graph.initializer}
    convolutions = {node.name for node in fp32.graph.node if node.op_type == "Conv"}
    assert {name for name in convolutions if name not in integers} == {n for n in convolutions if accurate.is_float(n)}
    assert len(convolutions - integers) == 11
    graph = lower_tflite(quantised, calibration.quant_params)
    floats = [op for op in graph.operators if "CONV" in op.name and graph.tensors[op.outputs[0]].dtype == np.float32]
    assert len(floats) == 11
    # It is nearer to FP32 than the preset without float layers.
    plain = quantise(replace(calibration, recipe=replace(accurate, float_layers=())), spec)
    for level in range(3):
        expected = run(fp32, spec, photographs[1])[level]
        noise = [float(((run(m, spec, photographs[1])[level] - expected) ** 2).mean()) for m in (quantised, plain)]
        assert noise[0] < noise[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activations": "guess"}, "activations is 'guess'; choose one of: mean-extremes"),
        ({"activations_of": {"context.*": "guess"}}, "activations_of is 'guess'; choose one of: mean-extremes"),
        ({"activations_of": {"context.*": 3}}, r"activations_of.context.\* should be text, not 3"),
        ({"weight_limit": 100}, "weight_limit is 100; choose one of: 127, 63"),
        ({"image_columns": 3}, "image_columns is 3; choose one of: 1, 2, 4"),
        ({"equalise": "yes"}, "equalise should be true or false, not 'yes'"),
        ({"float_layers": [3]}, r"float_layers\[0\] should be text, not 3"),
        ({"float_layers": ["role:tail"]}, "the role 'role:tail'; choose one of: stem, first-block"),
        ({"extra": 1}, "there is no field extra"),
    ],
)
def test_bad_recipes_are_refused(recipe: Recipe, changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_from_json({**json.loads(json.dumps(recipe.to_json())), **changes}, "mine.json")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda c: st.lists(c) | st.dictionaries(st.text(max_size=9), c),
        max_leaves=9,
    )
)
def test_any_json_is_a_recipe_or_one_clear_error(content: object) -> None:
    with pytest.raises(RecipeError):
        recipe_from_json(content, "any.json")


def test_unknown_recipes_are_named() -> None:
    with pytest.raises(RecipeError, match="nothing is neither a preset"):
        read_recipe("nothing")


def test_symmetric_tensors_have_their_zero_in_the_middle(
    fp32: onnx.ModelProto, spec: Spec, recipe: Recipe, calibration_images: ImageSet
) -> None:
    few = image_set(spec, scenes(2), "few")
    found = calibrate(fp32, spec, few, replace(recipe, symmetric=("backbone.*.activation",), rounding="nearest")).ranges
    assert found["backbone.stem.activation"].quant.zero_point == 128
    assert found["context.0.conv5_1.activation"].quant.zero_point != 128


def test_half_range_weights_stay_within_63(calibration: Calibration, spec: Spec) -> None:
    half = quantise(replace(calibration, recipe=replace(calibration.recipe, weight_limit=63)), spec)
    weights = [onnx.numpy_helper.to_array(t) for t in half.graph.initializer if t.name.endswith("weight.integers")]
    assert len(weights) == 56
    assert max(np.abs(w.astype(int)).max() for w in weights) == 63


def observed(values: np.ndarray) -> Observation:
    shaped = values.astype(np.float32).reshape(4, 2, -1)
    return Observation(shaped.min(axis=2), shaped.max(axis=2), shaped)


@pytest.mark.parametrize("name", ESTIMATORS)
@settings(max_examples=20)
@given(seed=st.integers(0, 999), shift=st.floats(-3, 3), outlier=st.floats(1, 50))
def test_every_estimator_gives_a_range_within_the_extremes(name: str, seed: int, shift: float, outlier: float) -> None:
    values = np.random.default_rng(seed).normal(shift, 1.0, 4000)
    values[0] = outlier
    found = ESTIMATORS[name](observed(values))
    assert found.estimator == name
    assert min(values.min(), 0) - 1e-5 <= found.low <= 0 <= found.high <= max(values.max(), 0) + 1e-5


def test_estimators_differ_where_there_is_an_outlier() -> None:
    """One value of 100 among thousands of size 1: the extremes follow it, the others do not."""
    values = np.random.default_rng(0).normal(0.0, 1.0, 80_000)
    values[0] = 100.0
    high = {name: estimate(observed(values)).high for name, estimate in ESTIMATORS.items()}
    assert high["min-max"] == 100.0
    assert 20 < high["mean-extremes"] < 40
    assert high["percentile"] < 10
    assert high["histogram"] < 50
    errors = {}
    for name, estimate in ESTIMATORS.items():
        quant = estimate(observed(values)).quant
        got = (np.clip(np.rint(values / quant.scale + quant.zero_point), 0, 255) - quant.zero_point) * quant.scale
        errors[name] = ((got - values) ** 2).mean()
    assert errors["mean-squared-error"] <= 1.05 * min(errors.values())


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), inputs=st.integers(1, 6), outputs=st.integers(1, 5))
def test_rounding_together_loses_less_than_rounding_to_the_nearest(seed: int, inputs: int, outputs: int) -> None:
    """On correlated inputs, measured on the outputs; and it is the nearest where inputs are independent."""
    random = np.random.default_rng(seed)
    weight = random.normal(size=(outputs, inputs, 3, 3))
    scale = np.abs(weight).reshape(outputs, -1).max(axis=1) / 15  # coarse, so that rounding matters
    mixing = random.normal(size=(9 * inputs, 9 * inputs))
    patches = mixing @ random.normal(size=(9 * inputs, 400))
    product = patches @ patches.T
    rows, nearest = weight.reshape(outputs, -1), np.rint(weight / scale[:, None, None, None])

    def loss(integers: np.ndarray) -> float:
        return float((((integers.reshape(outputs, -1) * scale[:, None] - rows) @ patches) ** 2).sum())

    together = round_together(weight, scale, product, 127)
    assert loss(together) <= 1.1 * loss(nearest)
    independent = round_together(weight, scale, np.eye(9 * inputs), 127)
    assert np.array_equal(independent, nearest.astype(np.int8))


def test_rounding_of_depthwise_weights_is_rounding_of_each_channel_alone() -> None:
    random = np.random.default_rng(1)
    weight, scale = random.normal(size=(3, 1, 3, 3)), np.array([0.1, 0.2, 0.3])
    products = np.stack([p @ p.T for p in random.normal(size=(3, 9, 50))])
    whole = round_together(weight, scale, products, 127)
    for c in range(3):
        assert np.array_equal(whole[c : c + 1], round_together(weight[c : c + 1], scale[c : c + 1], products[c], 127))


def test_a_good_set_has_no_warnings_and_a_bad_one_has_each(spec: Spec) -> None:
    good = image_set(spec, scenes(30), "good")
    assert judge(good, 28, spec) == []
    dark = np.full((40, 60, 3), 7, np.uint8)
    bad = image_set(spec, [dark] * 3, "bad")
    said = judge(bad, 0, spec)
    for word in ("only 3", "2 of 3", "finds no face", "under half of 640x480", "equally bright"):
        assert sum(word in line for line in said) == 1, word
    assert len(said) == 5


def test_layer_table_has_every_layer_and_true_figures(calibration: Calibration, int8: onnx.ModelProto) -> None:
    rows = layer_fits(calibration, int8)
    assert len(rows) == 56
    assert {row.kept for row in rows} == {"int8"}
    hidden = [row for row in rows if row.estimator != "candidates"]
    assert len(hidden) == 47
    assert all(20 < row.weight_noise < 70 for row in rows)
    assert all(20 < row.result_noise < 70 and 0 <= row.clipped < 0.05 for row in hidden)
    text = format_fits(rows, {row.layer: 30.0 for row in rows})
    assert len(text.splitlines()) == 58
    assert text.count("| 30.0 |") == 56


def test_signal_to_noise_of_known_ratios() -> None:
    signal = np.ones(100, np.float32)
    assert signal_to_noise(signal, signal * 0.1) == pytest.approx(20.0, abs=1e-5)
    assert signal_to_noise(signal, signal * 0) == float("inf")


@pytest.fixture(scope="module")
def small(checkpoint: Checkpoint) -> Spec:
    return Spec(224, 160)


@pytest.fixture(scope="module")
def small_fp32(checkpoint: Checkpoint, small: Spec) -> onnx.ModelProto:
    return to_onnx(Deploy(checkpoint.model, small).eval(), small)


@pytest.fixture(scope="module")
def small_calibration(small_fp32: onnx.ModelProto, small: Spec) -> Calibration:
    return calibrate(small_fp32, small, image_set(small, scenes(6), "scenes"), read_recipe("fast"))


def test_sensitivity_finds_the_layer_that_was_spoiled(small_calibration: Calibration, small: Spec) -> None:
    """A layer whose input range is a tenth of what it should be must come out as the most sensitive one."""
    ranges = dict(small_calibration.ranges)
    name = "pyramid.merge.0.activation"
    ranges[name] = Range(ranges[name].low / 10, ranges[name].high / 10, "spoiled")
    effects = sensitivities(replace(small_calibration, ranges=ranges), small)
    assert len(effects) == 56
    worst = sorted(effects, key=lambda layer: effects[layer])[:2]
    assert set(worst) == {"context.0.conv3", "context.0.conv5_1"}


def test_drift_of_known_boxes() -> None:
    box = np.array([[0.0, 0.0, 10.0, 10.0]])
    other = np.array([[0.0, 0.0, 10.0, 5.0]])
    none = np.zeros((0, 4))
    assert detection_drift([box], [box]) == 0.0
    assert detection_drift([box], [other]) == pytest.approx(50.0)
    assert detection_drift([box], [none]) == 100.0
    assert detection_drift([none], [none]) == 0.0
    assert detection_drift([np.vstack([box, box + 50])], [box]) == pytest.approx(100 * (1 - 2 / 3))


def test_a_drift_that_needs_float_layers_gets_as_few_as_it_needs(
    small_calibration: Calibration, small_fp32: onnx.ModelProto, small: Spec
) -> None:
    plain, points = search(small_calibration, small_fp32, small, 100.0)
    assert plain.recipe.float_layers == ()
    assert len(points) == 1
    asked = points[0].worst * 0.7
    chosen, points = search(small_calibration, small_fp32, small, asked)
    assert 0 < len(chosen.recipe.float_layers) < 56
    assert points[-1].worst <= asked < min(point.worst for point in points[:-1])
    with pytest.raises(DriftError, match="cannot be reached: the lowest is"):
        search(small_calibration, small_fp32, small, 0.0)


def test_the_cache_gives_back_what_was_stored_and_nothing_else(tmp_path: Path) -> None:
    assert cache.read_entry(tmp_path, "key") is None
    cache.write_entry(tmp_path, "key", {"a": b"1", "b": b"2"})
    assert cache.read_entry(tmp_path, "key") == {"a": b"1", "b": b"2"}
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    (tmp_path / "key" / "a").write_bytes(b"3")
    assert cache.read_entry(tmp_path, "key") is None


@pytest.mark.parametrize("name", TARGETS)
def test_targets_are_whole(name: str) -> None:
    target = read_target(name)
    assert target.name == name
    assert set(target.backends) == {"openvino", "tflite", "onnxruntime"}
    assert target.weight_limit in (63, 127)


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (Processor("x86_64", "new", frozenset({"avx2", "avx_vnni"})), "x86-vnni"),
        (Processor("x86_64", "server", frozenset({"avx2", "avx512_vnni"})), "x86-vnni"),
        (Processor("x86_64", "older", frozenset({"avx2", "fma"})), "x86-avx2"),
        (Processor("x86_64", "oldest", frozenset({"sse2"})), "generic"),
        (Processor("aarch64", "Pi 4", frozenset({"asimd"}), "0xd08"), "raspberry-pi-4"),
        (Processor("aarch64", "Pi 5", frozenset({"asimd", "asimddp"}), "0xd0b"), "raspberry-pi-5"),
        (Processor("riscv64", "board", frozenset()), "generic"),
    ],
)
def test_machines_are_recognised(processor: Processor, expected: str) -> None:
    target, why = choose_target(processor)
    assert target.name == expected
    assert why


def test_processors_are_read_from_the_kernels_file(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor : 0\nCPU part : 0xd0b\nFeatures : fp asimd asimddp\n\nprocessor : 1\n")
    seen = this_processor(tmp_path / "cpuinfo")
    assert (seen.part, seen.features) == ("0xd0b", {"fp", "asimd", "asimddp"})
    assert this_processor(tmp_path / "none").features == frozenset()


def test_unknown_targets_are_named() -> None:
    with pytest.raises(SpecError, match="no target 'toaster'; choose one of: generic"):
        read_target("toaster")
