"""Training on every backbone: from scratch, from a checkpoint with its own settings, and on to a bundle."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from acceptance.bars.int8_faces import int8_faces, kernels_agree
from PIL import Image
from untrained import random_detector

from retinaface_edge.calibration.dataset.image_set import image_folder
from retinaface_edge.calibration.recipe import read_recipe
from retinaface_edge.cli.main import main
from retinaface_edge.export.build import BuildRequest, build
from retinaface_edge.export.checkpoints.checkpoint import CheckpointError
from retinaface_edge.export.checkpoints.interpretation import IMAGENET, ONE_MEGABYTE, SMALL, Interpretation, Overrides
from retinaface_edge.export.checkpoints.source import checkpoint_file, read_checkpoint
from retinaface_edge.export.models.backbones import NAMES, BackboneError
from retinaface_edge.export.models.deploy import Deploy
from retinaface_edge.export.models.neck import Upsampling
from retinaface_edge.export.models.retinaface import Architecture, RetinaFace, architecture
from retinaface_edge.runtime import Bundle, Detector
from retinaface_edge.runtime.io.images import read_image
from retinaface_edge.runtime.ops.iou import iou
from retinaface_edge.runtime.spec import Colour
from retinaface_edge.training.errors import TrainingError
from retinaface_edge.training.finetune import normalised, train
from retinaface_edge.training.from_scratch import checkpoint_bytes, untrained
from retinaface_edge.training.label_files import Annotated, read_labels
from retinaface_edge.training.losses import Losses
from retinaface_edge.training.request import Silent, TrainRequest

INPUT = (160, 128)
QUICK = ("mobilenet_v1_0.25", "mobilenet_v2", "resnet18", "slim", "rfb")
"""One of each kind: the others differ in the numbers of their tables only."""


def one_face(folder: Path) -> list[Annotated]:
    """A picture of noise with one box that has landmarks."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)).save(folder / "a.png")
    (folder / "label.txt").write_text("# a.png\n10 10 40 40 20 20 40 20 30 30 22 40 38 40\n")
    return read_labels(folder / "label.txt")


def outputs(model: RetinaFace) -> torch.Tensor:
    """All predictions for one image of noise."""
    image = 50 * torch.randn(1, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return torch.cat([level.flatten() for head in model.eval()(image) for level in head])


@pytest.mark.parametrize("backbone", QUICK)
def test_every_backbone_is_trained_and_its_file_is_read_back(backbone: str, tmp_path: Path) -> None:
    assert backbone in NAMES
    checkpoint = untrained(backbone, 0)
    means = {name: value.clone() for name, value in checkpoint.model.named_buffers() if name.endswith("running_mean")}
    request = TrainRequest(
        checkpoint, one_face(tmp_path), (128, 64), tmp_path / "state", 2, 2, 1e-3, batch_norm_steps=1, augment=False
    )
    model = train(request)
    (tmp_path / "model.pth").write_bytes(checkpoint_bytes(model, checkpoint.interpretation))
    again = read_checkpoint(tmp_path / "model.pth")
    assert (again.family, again.backbone) == ("retinaface-edge", backbone)
    assert again.interpretation == checkpoint.interpretation
    torch.testing.assert_close(outputs(again.model), outputs(model), rtol=0, atol=0)
    # Gradients came as far as the first convolution, and every batch norm saw the batch.
    first = dict(model.named_parameters())["backbone.stem.conv.weight"]
    assert first.grad is not None and float(first.grad.abs().sum()) > 0.0
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not any(torch.equal(value, means[name]) for name, value in model.named_buffers() if name in means)


def test_batch_norm_learns_its_statistics_in_the_first_steps_only(tmp_path: Path) -> None:
    pictures, seen = one_face(tmp_path), []

    class Recorder(Silent):
        def losses(self, step: int, losses: Losses) -> None:
            seen.append(dict(checkpoint.model.named_buffers())["backbone.stem.norm.running_mean"].clone())

    checkpoint = untrained("slim", 0)
    train(TrainRequest(checkpoint, pictures, (128, 64), tmp_path / "s", 4, 2, 1e-3, batch_norm_steps=2), Recorder())
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[1], seen[2]) and torch.equal(seen[2], seen[3])


@pytest.mark.parametrize("settings", [None, Overrides(None, IMAGENET.mean, IMAGENET.std, IMAGENET.colour)])
def test_pixels_are_normalised_in_training_as_in_the_bundle(settings: Overrides | None) -> None:
    checkpoint = untrained("mobilenet_v1_0.25", 0, settings)
    spec = checkpoint.spec(128, 64)
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, *spec.input_shape[1:]), np.uint8))
    with torch.inference_mode():
        boxes = [level.permute(0, 2, 3, 1) for level in checkpoint.model.eval()(normalised(images, spec)).boxes]
        deployed = Deploy(checkpoint.model, spec).eval()(images)
    for given, level in zip(boxes, deployed[len(boxes) : 2 * len(boxes)], strict=True):
        torch.testing.assert_close(level, given, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("leaky", [True, False])
def test_a_file_keeps_the_settings_that_its_keys_do_not_tell(leaky: bool, tmp_path: Path) -> None:
    shape = Architecture(architecture("mobilenet_v1_0.25").backbone, 16, upsampling=Upsampling.BILINEAR, leaky=leaky)
    model = random_detector(0, shape)
    settings = Interpretation(shape.strides, SMALL, 5, IMAGENET.mean, IMAGENET.std, Colour.RGB, leaky=leaky)
    path = tmp_path / "model.pth"
    path.write_bytes(checkpoint_bytes(model, settings))
    again = read_checkpoint(path)
    assert again.interpretation == settings
    torch.testing.assert_close(outputs(again.model), outputs(model), rtol=0, atol=0)
    # What the user says goes before what the file says.
    assert read_checkpoint(path, Overrides(colour=Colour.BGR)).interpretation.colour is Colour.BGR
    saved = torch.load(path, weights_only=True)
    for key, value in (
        ("mean", [1.0]),
        ("colour", "XYZ"),
        ("upsampling", "cubic"),
        ("leaky", 2),
        ("std", [1.0, math.nan, 1.0]),
    ):
        torch.save({**saved, "settings": {**saved["settings"], key: value}}, path)
        with pytest.raises(CheckpointError, match="damaged settings"):
            read_checkpoint(path)


def test_what_cannot_be_trained_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = one_face(tmp_path)
    with pytest.raises(BackboneError, match="no backbone 'vgg'"):
        untrained("vgg", 0)
    with pytest.raises(CheckpointError, match="anchors"):
        untrained("resnet18", 0, Overrides(ONE_MEGABYTE))
    shape = Architecture(architecture("mobilenet_v1_0.25").backbone, 16, landmarks=3)
    (tmp_path / "three.pth").write_bytes(
        checkpoint_bytes(random_detector(0, shape), Interpretation(shape.strides, SMALL, 3))
    )
    with pytest.raises(TrainingError, match="3 landmarks"):
        TrainRequest(read_checkpoint(tmp_path / "three.pth"), pictures, (128, 64), tmp_path / "state")
    with pytest.raises(TrainingError, match="finite"):
        train(TrainRequest(untrained("slim", 0), pictures, (128, 64), tmp_path / "state", 5, 2, 1e30))
    arguments = ["train", "--labels", str(tmp_path / "label.txt"), "--output", str(tmp_path / "m.pth")]
    for more, message in (
        (["--checkpoint", str(tmp_path / "three.pth"), "--backbone", "resnet18"], "has the backbone mobilenet_v1_0.25"),
        (["--colour", "RGB"], "need --checkpoint or --backbone"),
    ):
        assert main([*arguments, *more]) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error


def crops(shared: Path, folder: Path) -> Path:
    """Four small pictures with two to five faces of 20 to 60 pixels, cut out of the labelled photographs."""
    lines = []
    for number, picture in enumerate(read_labels(shared / "landmarks" / "landmarks.json")[1:8:2]):
        frame = np.ascontiguousarray(read_image(picture.path)[:, :, ::-1])
        side = np.sqrt(np.prod(picture.boxes[:, 2:] - picture.boxes[:, :2], axis=1))
        scale = 32.0 / float(np.median(side))
        middle = 0.5 * (picture.boxes[:, :2] + picture.boxes[:, 2:])
        size = np.array(INPUT) / scale
        corner = np.clip(middle[len(middle) // 2] - size / 2, 0, np.maximum(np.array(frame.shape[1::-1]) - size, 0))
        box = (*corner, *(corner + size))
        Image.fromarray(frame).resize(INPUT, Image.Resampling.BILINEAR, box).save(folder / f"{number}.png")
        lines.append(f"# {number}.png")
        for corners, points in zip(picture.boxes, picture.landmarks, strict=True):
            low, high = (corners[:2] - corner) * scale, (corners[2:] - corner) * scale
            if np.all((low + high) / 2 > 0) and np.all((low + high) / 2 < INPUT):
                lines.append(" ".join(f"{v:.2f}" for v in (*low, *(high - low), *((points - corner) * scale).ravel())))
    (folder / "label.txt").write_text("\n".join(lines))
    return folder / "label.txt"


@pytest.fixture(scope="module")
def trained(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[float]]:
    """A ResNet-18 that learnt four small pictures by heart, the folder of these, and its losses."""
    folder = tmp_path_factory.mktemp("pictures")
    pictures, totals = read_labels(crops(shared, folder)), []

    class Recorder(Silent):
        def losses(self, step: int, losses: Losses) -> None:
            totals.append(float(losses.total))

    checkpoint = untrained("resnet18", 0)
    state = tmp_path_factory.mktemp("run") / "state"
    request = TrainRequest(checkpoint, pictures, INPUT, state, 110, 4, 1e-3, 0, 45, augment=False, save_every=1000)
    path = state.parent / "r18.pth"
    path.write_bytes(checkpoint_bytes(train(request, Recorder()), checkpoint.interpretation))
    return path, folder, totals


@pytest.fixture(scope="module")
def compiled(trained: tuple[Path, Path, list[float]], stages: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Its bundle, every layer in integers. It has seen four pictures: the photograph of the self-check is another."""
    path, folder, _ = trained
    images, output = image_folder(folder, 4), tmp_path_factory.mktemp("r18") / "bundle"
    recipe = read_recipe("fast")
    return build(BuildRequest(checkpoint_file(path), INPUT, images, recipe, output, cache=stages, self_check=False))


def test_a_residual_network_from_scratch_learns_its_pictures_by_heart(trained: tuple[Path, Path, list[float]]) -> None:
    path, _, totals = trained
    assert np.mean(totals[-5:]) < 0.15 * totals[0]
    assert read_checkpoint(path).backbone == "resnet18"


@pytest.fixture(scope="module")
def frames(trained: tuple[Path, Path, list[float]]) -> list[np.ndarray]:
    return [read_image(path) for path in sorted(trained[1].glob("*.png"))]


@pytest.mark.parametrize("backend", ["openvino", "tflite"])
def test_its_int8_finds_the_faces_of_its_fp32(backend: str, compiled: Bundle, frames: list[np.ndarray]) -> None:
    found = int8_faces(compiled, backend, frames)
    assert found.faces >= 8
    assert found.matched >= 0.98 * found.faces and not found.invented
    assert found.median_iou >= 0.95


def test_its_fp32_finds_every_labelled_face(
    trained: tuple[Path, Path, list[float]], compiled: Bundle, frames: list[np.ndarray]
) -> None:
    with Detector.load(compiled, "onnxruntime", "fp32") as detector:
        for picture, frame in zip(read_labels(trained[1] / "label.txt"), frames, strict=True):
            overlaps = iou(detector.detect(frame).boxes, picture.boxes)
            assert overlaps.shape[0] == overlaps.shape[1]
            assert np.all(overlaps.max(axis=0) > 0.6)


def test_its_int8_is_the_same_on_both_kernel_sets_to_the_bit(compiled: Bundle, frames: list[np.ndarray]) -> None:
    assert kernels_agree(compiled, frames)
