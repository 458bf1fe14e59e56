"""Training: labels, augmentation, resuming, and what is said of bad input."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retinaface_edge.cli.main import main
from retinaface_edge.export.checkpoints.demo import demo_checkpoint
from retinaface_edge.export.checkpoints.source import read_checkpoint
from retinaface_edge.export.graph.export import to_onnx
from retinaface_edge.export.models.deploy import Deploy
from retinaface_edge.export.models.mesh_linear import LinearBranch
from retinaface_edge.runtime import Spec, backends
from retinaface_edge.runtime.mesh.branch import head_pose
from retinaface_edge.runtime.mesh.topology import topology
from retinaface_edge.runtime.ops.letterbox import letterbox_for
from retinaface_edge.runtime.spec import Mesh
from retinaface_edge.training.errors import TrainingError
from retinaface_edge.training.finetune import train
from retinaface_edge.training.label_files import Annotated, read_labels
from retinaface_edge.training.losses import Losses
from retinaface_edge.training.mesh import augment, samples
from retinaface_edge.training.mesh.augment import Photograph, canvas
from retinaface_edge.training.mesh.fit import accuracy, move_boxes
from retinaface_edge.training.mesh.fit import train as train_branch
from retinaface_edge.training.mesh.samples import Canvases, Samples
from retinaface_edge.training.mesh.teacher import Teacher, TeacherError
from retinaface_edge.training.mesh.teacher_labels import read_arrays, write_arrays
from retinaface_edge.training.request import Silent, TrainRequest


def photograph() -> Photograph:
    """A grey picture with a white dot at each of three vertices of a face drawn into it."""
    mesh = topology().canonical * (5.0, -5.0, -5.0) + (120.0, 90.0, 0.0)
    pixels = np.full((180, 240, 3), 60, np.uint8)
    for vertex in (1, 33, 263):
        x, y = np.rint(mesh[vertex, :2] - 0.5).astype(int)
        pixels[y - 2 : y + 3, x - 2 : x + 3] = 255
    extent = mesh[:, :2].max(axis=0) - mesh[:, :2].min(axis=0)
    return Photograph("face", Image.fromarray(pixels), mesh[np.newaxis], np.array([np.sqrt(extent.prod())]))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_vertices_move_with_the_pixels(seed: int) -> None:
    with mock.patch.object(augment, "LAYOUTS", ((1, 1),)):  # in another tile, a vertex that was cut off shows nothing
        made = canvas([photograph()], 320, 240, np.random.default_rng(seed))
    assert made.pixels.shape == (240, 320, 3)
    brightness = made.pixels.astype(float).sum(axis=2)
    for mesh in made.meshes:
        size = np.linalg.norm(mesh[33, :2] - mesh[263, :2])
        for vertex in (1, 33, 263):
            x, y = np.floor(mesh[vertex, :2]).astype(int)
            reach = max(int(0.12 * size), 2)
            near = brightness[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
            around = brightness[max(y - 4 * reach, 0) : y + 4 * reach, max(x - 4 * reach, 0) : x + 4 * reach]
            if size > 40 and 8 < x < 312 and 8 < y < 232 and near.size and np.ptp(around) > 60:
                assert near.max() > np.median(around) or near.max() >= 3 * 250


def test_the_same_seed_draws_the_same_canvas() -> None:
    a, b = (canvas([photograph()], 320, 240, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(a.pixels, b.pixels)
    np.testing.assert_array_equal(a.meshes, b.meshes)


def test_a_whole_photograph_lies_where_the_letterbox_puts_it() -> None:
    with (
        mock.patch.object(augment, "LAYOUTS", ((1, 1),)),
        mock.patch.object(augment, "UNCROPPED", 1.0),
        mock.patch.object(augment, "MIRRORED", 0.0),
    ):
        made = canvas([photograph()], 320, 256, np.random.default_rng(0))
    placement = letterbox_for(Spec(320, 256), 240, 180)
    expected = photograph().meshes / (placement.scale_x, placement.scale_y, placement.scale_x)
    np.testing.assert_allclose(made.meshes, expected, atol=0.5)  # the letterbox rounds to whole pixels


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_a_moved_box_is_described_as_if_it_had_been_found_there(seed: int) -> None:
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    mesh = Mesh(channels=2)
    described = random.normal(size=(4, mesh.inputs)).astype(np.float32)
    vertices = random.normal(size=(4, 468, 3)).astype(np.float32)
    moved, wanted = (t.numpy() for t in move_boxes(torch.from_numpy(described), torch.from_numpy(vertices), 0.1))
    np.testing.assert_array_equal(moved[:, :-12], described[:, :-12])
    # What is fixed in the picture tells where the box went: new = (old − shift)·old size / new size.
    ratio = np.exp2(described[:, -2] - moved[:, -2])[:, None]
    shift = vertices[:, 0, :2] - wanted[:, 0, :2] / ratio
    np.testing.assert_allclose(wanted[..., :2], (vertices[..., :2] - shift[:, None]) * ratio[..., None], atol=1e-4)
    np.testing.assert_allclose(wanted[..., 2], vertices[..., 2] * ratio, atol=1e-4)
    old, new = (d[:, -12:-2].reshape(4, 5, 2) / 8 for d in (described, moved))
    np.testing.assert_allclose(new, (old - shift[:, None]) * ratio[..., None], atol=1e-4)
    assert np.ptp(ratio) > 0 and np.all(moved[:, -1] == described[:, -1])


def test_views_are_taken_from_the_cache_and_are_the_same(tmp_path: Path) -> None:
    from retinaface_edge.calibration.dataset.synthetic_scenes import portrait

    spec = Spec(320, 256, mesh=Mesh())
    model = to_onnx(Deploy(demo_checkpoint().model, spec).eval(), spec.with_features)
    network = backends.load("onnxruntime", spec.with_features, [model.SerializeToString()], 1)
    face = topology().canonical * (7.0, -7.0, -7.0) + (225.0, 135.0, 0.0)
    picture = Image.fromarray(np.ascontiguousarray(portrait()[:, :, ::-1]))
    photographs = [Photograph("astronaut", picture, face[np.newaxis], np.array([105.0]))]

    def views(cache: Path | None, networks: list[backends.Network], canvases: int = 5) -> Samples:
        with mock.patch.object(samples, "CHUNK", 2):
            return samples.training_samples(photographs, spec, networks, Canvases(canvases, 0, cache, "key"), iter)

    class NoNetwork:
        quant_params = network.quant_params

    plain, first = views(None, [network]), views(tmp_path, [network])
    cached = views(tmp_path, [NoNetwork()])  # type: ignore[list-item]
    assert len(plain) > 3
    for other in (first, cached):
        np.testing.assert_array_equal(other.described, plain.described)
        np.testing.assert_array_equal(other.vertices, plain.vertices)
    with pytest.raises(AttributeError):  # further canvases are not in the cache
        views(tmp_path, [NoNetwork()], 7)  # type: ignore[list-item]


def test_a_branch_learns_a_linear_face_and_is_the_same_each_time() -> None:
    random = np.random.default_rng(0)
    mesh = Mesh(channels=2)
    described = random.normal(size=(3000, mesh.inputs)).astype(np.float32)
    base = topology().canonical * (0.05, -0.05, -0.05)
    directions = random.normal(size=(3, 468, 3)) * 0.03
    vertices = (base + np.tensordot(described[:, :3], directions, 1)).astype(np.float32)
    samples = Samples(described, vertices, np.full(3000, 100, np.float32))
    first, again = (train_branch(samples, mesh, 12, 0) for _ in range(2))
    for name, value in first.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)
    learnt = float(accuracy(first, samples).flat.mean())
    untrained = float(accuracy(LinearBranch(mesh.inputs).eval(), samples).flat.mean())
    assert learnt < 0.4 * float(np.linalg.norm((vertices - vertices.mean(axis=0))[..., :2], axis=2).mean() * 100.0)
    assert learnt < untrained


def test_a_teacher_that_asks_for_too_much_memory_is_refused(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retinaface_edge.training.mesh.teacher.MOST_VALUES", 4_000_000)
    with pytest.raises(TeacherError, match=r"4,557,359 values, more than 4,000,000"):
        Teacher(shared / "mesh" / "face_landmark_468.tflite")


def test_the_teacher_sees_the_face_where_its_landmarks_are(shared: Path) -> None:
    from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
    from retinaface_edge.runtime.ops.postprocess import Face

    teacher = Teacher(shared / "mesh" / "face_landmark_468.tflite")
    frame = portrait()
    # The astronaut's face, by eye.
    landmarks = ((205.0, 116.0), (246.0, 113.0), (230.0, 143.0), (212.0, 165.0), (246.0, 162.0))
    picture = Image.fromarray(np.ascontiguousarray(frame[:, :, ::-1]))
    vertices, logit = teacher.mesh(picture, Face(1.0, (180.0, 70.0, 270.0, 195.0), landmarks))
    assert logit > 2.0
    corners = (vertices[[33, 133]].mean(axis=0), vertices[[362, 263]].mean(axis=0))
    assert np.abs(np.array(corners)[:, :2] - np.array(landmarks)[:2]).max() < 14.0
    assert abs(head_pose(vertices).roll) < 15.0
    with pytest.raises(TeacherError, match="cannot be read"):
        Teacher(shared / "mesh" / "no.tflite")
    with pytest.raises(TeacherError, match=r"not a TFLite network.*; give MediaPipe"):
        Teacher(shared / "mesh" / "LICENSE")


def label_text() -> str:
    points = "15 20 0.0 25 20 0.0 20 25 0.0 16 30 0.0 24 30 0.0 0.9"
    return f"# a.png\n10 10 20 30 {points}\n60 50 10 10 {' '.join(['-1 -1 -1'] * 5)} 0\n5 5 0 4\n"


@pytest.mark.parametrize(
    "faces",
    [
        [{"box_xyxy": [1, 2, 3]}],
        [{"box_xyxy": [1, 2, 3, 4], "landmarks_xy": [1, 2]}],
        [{"box_xyxy": [1, 2, 3, float("nan")]}],
        [{"box_xyxy": [1, 2, 3, 10**400]}],
        [5],
        {"a": 1},
    ],
)
def test_labels_that_are_no_faces_are_one_line(tmp_path: Path, faces: object) -> None:
    Image.new("RGB", (96, 64)).save(tmp_path / "a.png")
    (tmp_path / "label.json").write_text(json.dumps([{"file": "a.png", "faces": faces}]))
    with pytest.raises(TrainingError, match=r"label\.json") as raised:
        read_labels(tmp_path / "label.json")
    assert "\n" not in str(raised.value)


def test_labels_are_read_in_both_forms(tmp_path: Path) -> None:
    Image.new("RGB", (96, 64)).save(tmp_path / "a.png")
    (tmp_path / "label.txt").write_text(label_text())
    face = {"box_xyxy": [10, 10, 30, 40], "landmarks_xy": [15, 20, 25, 20, 20, 25, 16, 30, 24, 30]}
    (tmp_path / "label.json").write_text(
        json.dumps([{"file": "a.png", "faces": [face, {"box_xyxy": [60, 50, 70, 60]}]}])
    )
    for name in ("label.txt", "label.json"):
        (picture,) = read_labels(tmp_path / name)
        np.testing.assert_array_equal(picture.boxes, [[10, 10, 30, 40], [60, 50, 70, 60]])
        np.testing.assert_array_equal(picture.has_landmark, [True, False])
        np.testing.assert_array_equal(picture.landmarks[0], [[15, 20], [25, 20], [20, 25], [16, 30], [24, 30]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no face"),
        ("1 2 3 4\n", "a line with a path must come first"),
        ("# b.png\n1 2 3 4\n", "not in"),
        ("# a.png\n1 x\n", "not a label"),
    ],
)
def test_bad_labels_are_one_clear_line(
    tmp_path: Path, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (96, 64)).save(tmp_path / "a.png")
    (tmp_path / "label.txt").write_text(content)
    assert main(["train", "--labels", str(tmp_path / "label.txt"), "--output", str(tmp_path / "m.pth")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "m.pth").exists()


class Recorder(Silent):
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.totals: list[float] = []

    def losses(self, step: int, losses: Losses) -> None:
        self.totals.append(float(losses.total))


class KilledError(Exception):
    """Stands for the kill."""


@pytest.mark.parametrize("batch_norm_steps", [0, 5])
def test_a_killed_run_ends_as_one_that_was_not(tmp_path: Path, batch_norm_steps: int) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "label.txt").write_text(label_text())
    pictures = read_labels(tmp_path / "label.txt")

    def run(state: str, steps: int, seed: int = 0, kill_at: int = -1) -> dict[str, torch.Tensor]:
        class Killer(Silent):
            def losses(self, step: int, losses: Losses) -> None:
                if step == kill_at:
                    raise KilledError

        request = TrainRequest(
            demo_checkpoint(),
            pictures,
            (96, 64),
            tmp_path / state,
            steps,
            2,
            1e-3,
            seed,
            batch_norm_steps,
            save_every=2,
        )
        return train(request, Killer()).state_dict()

    whole = run("whole", 6)
    with pytest.raises(KilledError):
        run("part", 6, kill_at=4)
    resumed = run("part", 6)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)
    with pytest.raises(TrainingError, match="another checkpoint"):
        run("part", 6, seed=1)
    (tmp_path / "broken").write_bytes(b"no state")
    with pytest.raises(TrainingError, match="not a state"):
        run("broken", 6)


def test_the_loss_falls_on_annotated_photographs_and_the_result_is_a_checkpoint(shared: Path, tmp_path: Path) -> None:
    pictures: list[Annotated] = read_labels(shared / "landmarks" / "landmarks.json")
    assert sum(len(picture.boxes) for picture in pictures) == 112
    request = TrainRequest(
        demo_checkpoint(), pictures[:2], (320, 256), tmp_path / "state", steps=12, batch=2, rate=3e-4, augment=False
    )
    recorder = Recorder()
    model = train(request, recorder)
    assert np.mean(recorder.totals[-3:]) < 0.75 * recorder.totals[0]
    torch.save(model.state_dict(), tmp_path / "model.pth")
    assert read_checkpoint(tmp_path / "model.pth").family == "retinaface-edge"


def test_a_damaged_answer_is_asked_again(tmp_path: Path) -> None:
    entry = tmp_path / "answers" / "face.npz"
    write_arrays(entry, meshes=np.ones((2, 3)), sizes=np.ones(2))
    assert [array.shape for array in read_arrays(entry, "meshes", "sizes") or []] == [(2, 3), (2,)]
    assert read_arrays(entry, "meshes", "another") is None
    entry.write_bytes(entry.read_bytes()[:-40])
    assert read_arrays(entry, "meshes", "sizes") is None
