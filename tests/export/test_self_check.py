"""The self-check stops a detector under wrong settings, names the right ones, and lets good detectors pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from untrained import random_model

from retinaface_edge.calibration.dataset.image_set import image_set
from retinaface_edge.calibration.dataset.synthetic_scenes import scenes
from retinaface_edge.calibration.graph.session import run
from retinaface_edge.export.checkpoints.checkpoint import Checkpoint
from retinaface_edge.export.checkpoints.interpretation import CAFFE_RGB, IMAGENET, SMALL
from retinaface_edge.export.checkpoints.source import Overrides, read_checkpoint
from retinaface_edge.export.graph.export import to_onnx
from retinaface_edge.export.models.deploy import Deploy
from retinaface_edge.export.models.retinaface import RetinaFace
from retinaface_edge.export.self_check import Photograph, SelfCheckError, known_photograph, renormalised, self_check
from retinaface_edge.runtime import Spec
from retinaface_edge.runtime.spec import Colour


def graph(model: RetinaFace, spec: Spec) -> onnx.ModelProto:
    return to_onnx(Deploy(model, spec).eval(), spec)


def photographs(spec: Spec, portrait: bool = True, count: int = 3) -> list[Photograph]:
    known = known_photograph(spec)
    assert known is not None
    composed = [Photograph(pixels) for pixels in image_set(spec, scenes(count, seed=1), "scenes").inputs]
    return [known, *composed] if portrait else composed


@pytest.mark.parametrize("portrait", [True, False])
def test_the_demo_is_plausible(fp32: onnx.ModelProto, spec: Spec, portrait: bool) -> None:
    check = self_check(fp32, spec, photographs(spec, portrait))
    check.require()
    assert check.seen.agreement > 0.9
    assert check.seen.missed == 0


def test_wrong_anchors_are_told_from_the_demos_own(checkpoint: Checkpoint, spec: Spec) -> None:
    wrong = replace(spec, anchor_sizes=SMALL)
    check = self_check(graph(checkpoint.model, wrong), wrong, photographs(spec))
    with pytest.raises(SelfCheckError, match=r"--anchors 16,32/64,128/256,512, or go on with --ignore-self-check"):
        check.require()


def test_a_wrong_normalisation_is_told(checkpoint: Checkpoint, spec: Spec) -> None:
    wrong = replace(spec, mean=IMAGENET.mean, std=IMAGENET.std, colour=IMAGENET.colour)
    check = self_check(graph(checkpoint.model, wrong), wrong, photographs(spec))
    assert any("finds no face" in problem for problem in check.problems)
    assert check.suggestion is not None
    assert check.suggestion.anchor_sizes is None
    with pytest.raises(SelfCheckError, match=r"--mean 1\d\d,117,1\d\d --std 1,1,1 --colour (BGR|RGB)"):
        check.require()


def test_a_dead_network_is_stopped_without_a_suggestion(spec: Spec) -> None:
    model = random_model(seed=1)
    with torch.no_grad():
        for convolution in model.score:
            convolution.weight.zero_()
            convolution.bias.copy_(torch.tensor([0.0, 3.0] * 2))
    check = self_check(graph(model, spec), spec, photographs(spec, count=1))
    assert "it finds the same on an empty picture as on a photograph" in check.problems
    with pytest.raises(SelfCheckError, match="no known setting makes it plausible"):
        check.require()


def test_a_network_that_finds_nothing_is_stopped(checkpoint: Checkpoint, spec: Spec) -> None:
    empty = [Photograph(np.zeros(spec.input_shape, np.uint8))]
    with pytest.raises(SelfCheckError, match="finds no face on 1 photograph;"):
        self_check(graph(checkpoint.model, spec), spec, empty).require()


@pytest.mark.parametrize("other", [CAFFE_RGB, IMAGENET], ids=["rgb", "imagenet"])
@pytest.mark.parametrize("present", [Colour.BGR, Colour.RGB])
def test_a_renormalised_graph_is_that_of_the_other_spec(other: object, present: Colour) -> None:
    assert isinstance(other, type(IMAGENET))
    model = random_model(seed=2)
    spec = Spec(96, 64, mean=(90, 100.5, 110), std=(2, 1, 4), colour=present)
    wanted = replace(spec, mean=other.mean, std=other.std, colour=other.colour)
    image = np.random.default_rng(0).integers(0, 256, spec.input_shape, np.uint8)
    changed = run(renormalised(graph(model, spec), spec, other), spec, image)
    for result, expected in zip(changed, run(graph(model, wanted), wanted, image), strict=True):
        assert np.abs(result - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


GOOD = {
    "bubbliiiing_mobilenet0.25.pth": Overrides(),
    "one_mb_rfb.pth": Overrides(),
    "one_mb_slim.pth": Overrides(),
    "one_mb_mobilenet0.25_small_anchors.pth": Overrides(anchor_sizes=SMALL),
    "conv_n_names.onnx": Overrides(mean=IMAGENET.mean, std=IMAGENET.std, colour=IMAGENET.colour),
}


@pytest.mark.parametrize("name", GOOD)
def test_public_files_are_plausible_under_their_own_settings(name: str, shared: Path) -> None:
    read = read_checkpoint(shared / "checkpoints" / name, GOOD[name])
    spec = read.interpretation.spec(640, 480)
    check = self_check(graph(read.model, spec), spec, photographs(spec))
    check.require()
    assert check.seen.missed == 0


@pytest.mark.parametrize(
    ("name", "given", "options"),
    [
        ("one_mb_mobilenet0.25_small_anchors.pth", Overrides(), "--anchors 10,20/32,64/128,256"),
        ("one_mb_mobilenet0.25_small_anchors.pth", Overrides(SMALL, leaky=True), "--activation relu"),
        ("conv_n_names.onnx", Overrides(), "--mean 123.675,116.28,103.53 --std 58.395,57.12,57.375 --colour RGB"),
    ],
)
@pytest.mark.parametrize("count", [0, 4])
def test_public_files_under_other_settings_are_stopped_with_the_right_ones(
    name: str, given: Overrides, options: str, count: int, shared: Path
) -> None:
    read = read_checkpoint(shared / "checkpoints" / name, given)
    spec = read.interpretation.spec(640, 480)
    check = self_check(
        graph(read.model, spec), spec, photographs(spec, count=count) if count else photographs(spec)[:1]
    )
    assert check.suggestion is not None
    assert check.suggestion.options == options
    with pytest.raises(SelfCheckError, match="not plausible"):
        check.require()
