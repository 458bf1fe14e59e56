"""Published checkpoints of every family and backbone are read, and compute what their definitions say."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from oracles.published import PUBLISHED, Outputs, Weights
from torch import Tensor
from untrained import random_detector

from retinaface_edge.export.checkpoints.checkpoint import CheckpointError
from retinaface_edge.export.checkpoints.interpretation import SMALL, Overrides
from retinaface_edge.export.checkpoints.source import read_checkpoint
from retinaface_edge.export.models.backbones import NAMES, BackboneError, backbone_table
from retinaface_edge.export.models.deploy import Deploy
from retinaface_edge.export.models.neck import Upsampling
from retinaface_edge.export.models.retinaface import Architecture, RetinaFace, architecture

SIDE = 64
RELATIVE = 1e-4


@lru_cache(maxsize=1)
def made(name: str) -> tuple[dict[str, Tensor], Tensor, Outputs]:
    """Random weights of a published network, an input, and the outputs by its definition."""
    weights = Weights(seed=len(name))
    x = torch.randn((1, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1)) * 60.0
    with torch.no_grad():
        outputs = PUBLISHED[name].define(weights, x.double())
    return weights.state, x, outputs


def relative(result: Tensor, expected: Tensor) -> float:
    return float((result.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_network_is_read_and_computes_what_its_definition_says(name: str, tmp_path: Path) -> None:
    published = PUBLISHED[name]
    state, x, expected = made(name)
    torch.save({published.prefix + key: value for key, value in state.items()}, tmp_path / "model.pth")
    read = read_checkpoint(tmp_path / "model.pth", Overrides(published.anchors))
    assert (read.family, read.backbone) == (published.family, published.backbone)
    assert read.wrappings == ((published.prefix,) if published.prefix else ())
    with torch.no_grad():
        predictions = read.model(x)
    for head, definition in zip(predictions, expected, strict=True):
        assert len(head) == len(definition)
        for result, reference in zip(head, definition, strict=True):
            assert result.shape == reference.shape
            assert relative(result, reference) < RELATIVE


@pytest.mark.parametrize("name", [name for name, published in PUBLISHED.items() if published.listed])
def test_the_definitions_have_the_keys_and_shapes_of_the_published_files(name: str, shared: Path) -> None:
    published = PUBLISHED[name]
    listed = json.loads((shared / "checkpoints" / "family_keys.json").read_text())[published.listed]
    state, _, _ = made(name)
    assert {published.prefix + key: list(value.shape) for key, value in state.items()} == listed


@pytest.mark.parametrize("name", NAMES)
def test_every_backbone_is_read_back_under_our_own_names(name: str, tmp_path: Path) -> None:
    model = random_detector(3, architecture(name))
    torch.save(model.state_dict(), tmp_path / "model.pth")
    read = read_checkpoint(tmp_path / "model.pth")
    assert (read.family, read.backbone) == ("retinaface-edge", name)
    assert read.model.architecture == model.architecture
    for key, value in model.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(read.model.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("backbone", "strides"),
    [
        ("mobilenet_v1_0.25", (4, 8, 16, 32)),
        ("resnet18", (4, 8, 16, 32, 64)),
        ("mobilenet_v2", (8, 16, 32, 64)),
        ("resnet50", (4, 8, 16, 32, 64)),
    ],
)
def test_a_pyramid_has_the_levels_that_its_strides_say(backbone: str, strides: tuple[int, ...], tmp_path: Path) -> None:
    shape = Architecture(backbone_table(backbone), 64, strides, (2,) * len(strides))
    model = random_detector(4, shape)
    with torch.no_grad():
        scores = model(torch.zeros(1, 3, 128, 192)).scores
    assert [tuple(score.shape[2:]) for score in scores] == [(128 // s, 192 // s) for s in strides]
    torch.save(model.state_dict(), tmp_path / "model.pth")
    assert read_checkpoint(tmp_path / "model.pth").model.architecture == shape


def test_other_numbers_of_anchors_and_landmarks_are_read_from_the_heads(tmp_path: Path) -> None:
    shape = Architecture(backbone_table("mobilenet_v1_0.5"), 64, (8, 16, 32), (2, 2, 2), landmarks=98)
    torch.save(random_detector(5, shape).state_dict(), tmp_path / "model.pth")
    read = read_checkpoint(tmp_path / "model.pth")
    assert (read.model.architecture, read.interpretation.landmarks) == (shape, 98)


def test_anchors_whose_sizes_no_file_tells_are_asked_for(tmp_path: Path) -> None:
    shape = Architecture(backbone_table("mobilenet_v1_0.25"), 64, (8, 16, 32), (3, 3, 3))
    torch.save(random_detector(6, shape).state_dict(), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"3/3/3 anchors per cell .* --anchors"):
        read_checkpoint(tmp_path / "model.pth")


def test_blocks_of_no_resnet_are_refused(tmp_path: Path) -> None:
    state, _, _ = made("yakhyo r18")
    state = {key.replace("layer4.1", "layer4.2"): value for key, value in state.items()}
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"\(2, 2, 2, 3\) basic blocks"):
        read_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize("name", ["mobilenet_v3", "resnet20", "mobilenet_v1_9", "mobilenet_v1_0.00001", ""])
def test_a_backbone_that_does_not_exist_is_refused_by_name(name: str) -> None:
    with pytest.raises(BackboneError, match="choose one of"):
        backbone_table(name)


def test_bilinear_upsampling_is_pytorchs(tmp_path: Path) -> None:
    table = backbone_table("mobilenet_v1_0.25")
    nearest = random_detector(7, Architecture(table))
    bilinear = RetinaFace(Architecture(table, upsampling=Upsampling.BILINEAR)).eval()
    bilinear.load_state_dict(nearest.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(nearest(x).boxes[2], bilinear(x).boxes[2])
        assert not torch.allclose(nearest(x).boxes[0], bilinear(x).boxes[0])


def test_the_activation_is_as_given_or_as_the_anchors_tell(tmp_path: Path) -> None:
    torch.save(random_detector(8, architecture()).state_dict(), tmp_path / "model.pth")
    for leaky, anchors, expected in (
        (None, None, True),
        (None, SMALL, False),
        (True, SMALL, True),
        (False, None, False),
    ):
        read = read_checkpoint(tmp_path / "model.pth", Overrides(anchors, leaky=leaky))
        assert read.model.architecture.leaky is read.interpretation.leaky is expected


def test_an_activation_is_refused_where_there_is_none_to_choose(tmp_path: Path) -> None:
    torch.save(random_detector(9, architecture("slim")).state_dict(), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="RetinaFace on Slim, which has no LeakyReLU; leave out --activation"):
        read_checkpoint(tmp_path / "model.pth", Overrides(leaky=False))


def test_a_spec_of_another_detector_is_refused() -> None:
    from retinaface_edge.runtime import Spec

    shape = Architecture(backbone_table("mobilenet_v1_0.25"), 64, (8, 16, 32), (3, 2, 2))
    with pytest.raises(BackboneError, match=r"\(3, 2, 2\) anchors per cell"):
        Deploy(RetinaFace(shape), Spec())
