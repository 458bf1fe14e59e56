"""The dense branch in a bundle: on every backend, beside a detector that it leaves as it was."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from retinaface_edge.benchmarks.drift.layer_values import layer_values
from retinaface_edge.benchmarks.drift.layers import read_layers
from retinaface_edge.benchmarks.inference.network_under_test import networks_of
from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.calibration.graph.onnx_graph import read_graph
from retinaface_edge.cli.main import main
from retinaface_edge.export.checkpoints.checkpoint import Checkpoint
from retinaface_edge.export.checkpoints.demo import DENSE_BRANCH, demo_branch
from retinaface_edge.export.graph.passes.integer_features import integer_features, output_quant_params
from retinaface_edge.export.models.mesh_branch import BranchError, branch_file, read_branch
from retinaface_edge.runtime import Bundle, BundleError, Detector, Faces
from retinaface_edge.runtime.backends import load
from retinaface_edge.runtime.bundle.bundle import MANIFEST
from retinaface_edge.runtime.mesh.branch import head_pose
from retinaface_edge.runtime.mesh.topology import topology
from retinaface_edge.runtime.ops.letterbox import letterbox, letterbox_for

BACKENDS = ("openvino", "tflite", "onnxruntime")


def crowd() -> np.ndarray:
    """The portrait nine times: more faces than a batch has."""
    frame = portrait()
    small = np.asarray(Image.fromarray(frame).resize((frame.shape[1] // 2, frame.shape[0] // 2)))
    return np.tile(small, (3, 3, 1))


def same(a: Faces, b: Faces) -> bool:
    pairs = ((a.scores, b.scores), (a.boxes, b.boxes), (a.landmarks, b.landmarks))
    return all(np.array_equal(x, y) for x, y in pairs)


def distance(a: Faces, b: Faces) -> np.ndarray:
    """Mean vertex distance of each face in the picture, as a share of the size of its box."""
    assert a.vertices is not None and b.vertices is not None
    size = np.sqrt(np.prod(a.boxes[:, 2:] - a.boxes[:, :2], axis=1))
    return np.asarray(np.linalg.norm((a.vertices - b.vertices)[..., :2], axis=2).mean(axis=1) / size)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_detector_gives_the_same_with_the_branch_and_without(
    bundle: Bundle, mesh_bundle: Bundle, backend: str, precision: str
) -> None:
    frame = crowd()
    with Detector.load(bundle, backend, precision) as plain, Detector.load(mesh_bundle, backend, precision) as dense:
        expected = plain.detect(frame)
        assert len(expected) > 8
        assert same(dense.detect(frame), expected)
        found = dense.detect(frame, mesh=True)
        assert same(found, expected)
        assert dense.detect(frame).vertices is None
        (many,) = dense.detect_many([frame], mesh=True)
        np.testing.assert_array_equal(many.vertices, found.vertices)


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-4), ("int8", 0.03)])
def test_backends_agree_on_the_vertices(mesh_bundle: Bundle, precision: str, most: float) -> None:
    frame = portrait()
    reference = Detector.load(mesh_bundle, "onnxruntime", "fp32").detect(frame, mesh=True)
    for backend in BACKENDS:
        found = Detector.load(mesh_bundle, backend, precision).detect(frame, mesh=True)
        assert len(found) == len(reference)
        assert distance(reference, found).max() < most


def test_openvino_gives_features_as_the_integers_that_its_heads_read(mesh_bundle: Bundle) -> None:
    spec, first = mesh_bundle.spec, len(mesh_bundle.spec.outputs)
    image = np.empty(spec.input_shape, np.uint8)
    letterbox(spec, letterbox_for(spec, 512, 512), portrait(), image)
    found = {}
    for backend in ("openvino", "onnxruntime"):
        files = [mesh_bundle.read(file) for file in mesh_bundle.artifact(backend, "int8").files]
        network = load(backend, spec.with_features, files, 1)
        found[backend] = list(zip(network.run(image)[first:], network.quant_params[first:], strict=True))
    for (integers, quant), (floats, _) in zip(found["openvino"], found["onnxruntime"], strict=True):
        assert integers.dtype == np.uint8 and floats.dtype == np.float32
        steps = floats / quant.scale + quant.zero_point
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)  # the same grid
        assert np.abs(integers - steps).mean() < 1.0


def test_layers_can_be_compared_where_features_are_outputs(mesh_bundle: Bundle) -> None:
    networks = {network.name: network for network in networks_of(mesh_bundle)}
    layers = read_layers(networks["onnxruntime fp32"])
    assert {layer.given_as for layer in layers} == {"", "feature_8", "feature_16", "feature_32"}
    image = np.full(mesh_bundle.spec.input_shape, 90, np.uint8)
    image[0, 100:400, 50:350] = portrait()[100:400, 50:350]
    expected, found = (layer_values(networks[f"{name} fp32"], layers).run(image) for name in ("onnxruntime", "tflite"))
    for layer in layers:
        np.testing.assert_allclose(found[layer.value], expected[layer.value], rtol=1e-3, atol=1e-3)


def test_features_that_are_on_no_grid_stay_floats(mesh_bundle: Bundle) -> None:
    (file,) = mesh_bundle.artifact("onnxruntime", "fp32").files
    model = read_graph(onnx.load_from_string(mesh_bundle.read(file)))
    changed = integer_features(model)
    assert changed is model and output_quant_params(changed) == {}


def test_the_mesh_lies_on_the_face_and_a_mirrored_picture_has_a_mirrored_mesh(mesh_bundle: Bundle) -> None:
    frame = portrait()
    with Detector.load(mesh_bundle, "onnxruntime", "fp32") as detector:
        (face,) = detector.detect(frame, mesh=True)
        (mirrored,) = detector.detect(np.ascontiguousarray(frame[:, ::-1]), mesh=True)
        assert detector.detect(np.zeros_like(frame), mesh=True).vertices is not None
    assert face.vertices is not None and mirrored.vertices is not None
    size = face.box[2] - face.box[0]
    # Corners of the eyes about each eye, the tip of the nose, the corners of the mouth: where the landmarks are.
    points = [face.vertices[[33, 133]].mean(axis=0), face.vertices[[362, 263]].mean(axis=0)]
    points += [face.vertices[1], face.vertices[61], face.vertices[291]]
    assert np.abs(np.array(points)[:, :2] - np.array(face.landmarks)).max() < 0.12 * size
    back = mirrored.vertices[topology().mirror] * (-1.0, 1.0, 1.0) + (frame.shape[1], 0.0, 0.0)
    assert np.linalg.norm((back - face.vertices)[:, :2], axis=1).mean() < 0.05 * size
    assert head_pose(mirrored.vertices).yaw == pytest.approx(-head_pose(face.vertices).yaw, abs=8.0)


def test_the_bundle_counts_the_branch_and_verify_finds_it_changed(mesh_bundle: Bundle, tmp_path: Path) -> None:
    assert len(mesh_bundle.meshes) == 6
    assert {a.bytes <= 400_000 for a in mesh_bundle.meshes if a.precision == "int8"} == {True}
    copy = tmp_path / "bundle"
    shutil.copytree(mesh_bundle.path, copy)
    Bundle.load(copy).verify()
    broken = copy / mesh_bundle.mesh("tflite", "int8").files[0].path
    broken.write_bytes(broken.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match=r"mesh\.int8"):
        Bundle.load(copy).verify()


def test_a_bundle_without_a_branch_says_so_and_does_not_speak_of_meshes(bundle: Bundle) -> None:
    assert "mesh" not in (bundle.path / MANIFEST).read_text()
    with Detector.load(bundle, "onnxruntime", "fp32") as detector, pytest.raises(BundleError, match="--mesh"):
        detector.detect(portrait(), mesh=True)


@pytest.mark.parametrize("kind", ["obj", "ply", "json"])
def test_detect_writes_meshes_and_draws_wireframes(
    mesh_bundle: Bundle, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "face.png"
    Image.fromarray(np.ascontiguousarray(portrait()[:, :, ::-1])).save(picture)
    command = ["detect", str(mesh_bundle.path), str(picture), "--backend", "onnxruntime", "--mesh", "--draw"]
    command += [str(tmp_path / "drawn"), "--mesh-output", str(tmp_path / "out"), "--mesh-format", kind, "--json", "-"]
    assert main(command) == 0
    (record,) = json.loads(capsys.readouterr().out)["faces"]
    assert np.array(record["vertices"]).shape == (468, 3)
    assert set(record["pose"]) == {"yaw", "pitch", "roll"}
    assert (tmp_path / "out" / f"face-0.{kind}").is_file()
    assert (tmp_path / "drawn" / "face.png").is_file()


def test_a_format_without_a_folder_is_one_clear_line(mesh_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", str(mesh_bundle.path), "x.png", "--mesh-format", "obj"]) == 2
    assert "exist" in (text := capsys.readouterr().err) or "--mesh-output" in text


def test_the_file_of_a_branch_is_read_as_it_was_written(tmp_path: Path) -> None:
    branch = demo_branch()
    assert DENSE_BRANCH.stat().st_size <= 1_000_000
    file = tmp_path / "mesh.safetensors"
    file.write_bytes(branch_file(branch.model, branch.mesh, branch.about))
    again = read_branch(file)
    assert branch_file(again.model, again.mesh, again.about) == file.read_bytes()
    assert again.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (again.mesh, again.about) == (branch.mesh, branch.about)
    for name, value in branch.model.state_dict().items():
        np.testing.assert_array_equal(again.model.state_dict()[name].numpy(), value.numpy())


def repacked(changes: dict[str, bytes]) -> bytes:
    """The demo's branch with some entries of its archive exchanged."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(DENSE_BRANCH) as archive, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as changed:
        for name in archive.namelist():
            changed.writestr(name, changes.get(name, archive.read(name)))
    return buffer.getvalue()


def infinite() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.full(3 * 468, np.inf, np.float16))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoder.bias.npy": b"no array"}, "train-mesh wrote"),
        ({"decoder.bias.npy": infinite()}, "not finite"),
        ({"decoder.bias.npy": bytes(65 << 20)}, "unpacks to more"),
        ({"branch.json": b'{"kind": "linear", "channels": 1000000000, "vertices": 468, "about": {}}'}, "more than"),
        ({"branch.json": b'{"kind": "linear", "channels": 1e999, "vertices": 468, "about": {}}'}, "train-mesh wrote"),
        ({"branch.json": b'{"kind": "linear", "channels": 64, "vertices": 468}'}, "about"),
        ({"branch.json": b"[" * 100_000}, "train-mesh wrote"),
    ],
)
def test_a_hostile_branch_is_refused_in_one_line(tmp_path: Path, changes: dict[str, bytes], words: str) -> None:
    file = tmp_path / "mesh.npz"
    file.write_bytes(repacked(changes))
    with pytest.raises(BranchError, match=words) as raised:
        read_branch(file)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:1000], lambda data: b"", lambda data: data.replace(b"branch.json", b"brunch.json")]
)
def test_a_damaged_branch_and_one_of_another_detector_are_refused(
    tmp_path: Path, damage: Callable[[bytes], bytes], checkpoint: Checkpoint
) -> None:
    file = tmp_path / "mesh.npz"
    file.write_bytes(damage(DENSE_BRANCH.read_bytes()))
    with pytest.raises(BranchError, match="train-mesh wrote"):
        read_branch(file)
    demo_branch().check(checkpoint.digest)
    with pytest.raises(BranchError, match="train it again"):
        demo_branch().check("0" * 64)
