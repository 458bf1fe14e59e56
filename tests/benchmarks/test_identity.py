"""Identity under drift and verification by a bundle, with a recogniser whose embeddings are known."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.benchmarks.gates.gate import apply_gate, read_gate
from retinaface_edge.benchmarks.identity.crops import Recogniser, crop_of, embeddings_of, read_recogniser
from retinaface_edge.benchmarks.identity.drift import ChosenFaces, IdentityShift, identity_drift
from retinaface_edge.benchmarks.identity.embedder import EmbedderError, Preprocessing
from retinaface_edge.benchmarks.identity.pairs import Pair
from retinaface_edge.benchmarks.identity.result import VerificationResult
from retinaface_edge.benchmarks.identity.verify import (
    LabelledPairs,
    VerificationProtocol,
    figures_of_pairs,
    score_of,
    verify,
)
from retinaface_edge.benchmarks.inference.measurement import Execution, read_set
from retinaface_edge.benchmarks.inference.network_under_test import REFERENCE, NetworkUnderTest, networks_of
from retinaface_edge.benchmarks.inference.open_picture import OpenPicture
from retinaface_edge.benchmarks.inference.result_cache import ResultCache
from retinaface_edge.benchmarks.results import read_result, write_result
from retinaface_edge.calibration.dataset.synthetic_scenes import scenes
from retinaface_edge.cli.main import main
from retinaface_edge.runtime import Bundle, Spec
from retinaface_edge.runtime.ops.faces import Face
from retinaface_edge.runtime.ops.quantization import QuantParams

SIZE = 16


def recogniser_bytes(outputs: int = 64, size: int | str = SIZE, channels_last: bool = False) -> bytes:
    """An ONNX model whose embedding is the crop itself, thinned: (x - mean) / std at every second or so pixel."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    shape = ["n", size, size, 3] if channels_last else ["n", 3, size, size]
    values = 3 * SIZE * SIZE
    weights = np.random.default_rng(1).normal(size=(values, outputs)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["x", "shape"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["y"]),
        ],
        "recogniser",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", outputs])],
        [
            numpy_helper.from_array(np.array([-1, values], np.int64), "shape"),
            numpy_helper.from_array(weights, "w"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recogniser") / "recogniser.onnx"
    path.write_bytes(recogniser_bytes())
    return path


@pytest.fixture(scope="module")
def recogniser(file: Path) -> Recogniser:
    return read_recogniser(file, Preprocessing())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    for index, frame in enumerate(scenes(3, seed=11)):
        Image.fromarray(frame[:, :, ::-1]).save(path / f"{index}.png")
    return path


@pytest.fixture(scope="module")
def networks(bundle: Bundle) -> list[NetworkUnderTest]:
    return networks_of(bundle, [str(REFERENCE), "onnxruntime int8"])


FACES = ChosenFaces(least_score=0.6, least_px=20.0)


def test_an_artifact_against_itself_has_the_same_identities(
    recogniser: Recogniser, networks: list[NetworkUnderTest], folder: Path
) -> None:
    reference = networks_of_reference(networks)
    shift = IdentityShift(reference, reference, recogniser, FACES)
    for path in sorted(folder.iterdir()):
        frame = np.asarray(Image.open(path))[:, :, ::-1].copy()
        found = shift.value(shift.measure(OpenPicture(frame)))
        np.testing.assert_allclose(np.diag(found.cosines), 1.0, atol=1e-6)
        np.testing.assert_allclose(found.cosines, found.reference_cosines, atol=1e-6)
        np.testing.assert_allclose(found.mirrored, found.reference_mirrored, atol=1e-6)
        assert found.unmatched == 0


def networks_of_reference(networks: list[NetworkUnderTest]) -> NetworkUnderTest:
    return next(network for network in networks if network.artifact == REFERENCE)


def test_cosines_are_those_of_the_crops_by_both_landmarks(
    recogniser: Recogniser, networks: list[NetworkUnderTest], folder: Path
) -> None:
    """From the faces in the arrays, by another way: crops, one embedding at a time, pairs by loops."""
    reference = networks_of_reference(networks)
    (other,) = (network for network in networks if network is not reference)
    shift = IdentityShift(reference, other, recogniser, FACES)
    faces = 0
    for path in sorted(folder.iterdir()):
        picture = OpenPicture(np.asarray(Image.open(path))[:, :, ::-1].copy())
        found = shift.value(shift.measure(picture))
        faces += len(found.reference)
        for i, expected in enumerate(found.reference):
            assert expected.score >= FACES.least_score
            assert max(expected.box[2] - expected.box[0], expected.box[3] - expected.box[1]) >= FACES.least_px
            one = embedded(recogniser, picture, expected, False)
            for j, face in enumerate(found.artifact):
                assert found.cosines[i, j] == pytest.approx(one @ embedded(recogniser, picture, face, False), abs=1e-5)
            mirrored = embedded(recogniser, picture, found.artifact[i], True)
            assert found.mirrored[i] == pytest.approx(one @ mirrored, abs=1e-5)
    assert faces > 3


class Blind:
    """A network that finds no face."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.quant_params = (QuantParams(),) * len(spec.outputs)

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        return [np.full(output.shape, -10.0, np.float32) for output in self.spec.outputs]


def test_an_artifact_that_finds_no_face_has_lost_them_all(
    recogniser: Recogniser, networks: list[NetworkUnderTest], folder: Path
) -> None:
    reference = networks_of_reference(networks)
    blind = replace(reference, digest="blind", loader=lambda spec, files, threads: Blind(spec))
    picture = OpenPicture(np.asarray(Image.open(folder / "0.png"))[:, :, ::-1].copy())
    assert recogniser.embed([]).shape == (0, 64)
    shift = IdentityShift(reference, blind, recogniser, FACES)
    found = shift.value(shift.measure(picture))
    assert found.unmatched > 0
    assert found.cosines.shape == (0, 0)


def embedded(recogniser: Recogniser, picture: OpenPicture, face: Face, mirrored: bool) -> np.ndarray:
    crop = crop_of(picture.frame, face, SIZE)
    assert crop is not None
    return recogniser.embed([crop[:, ::-1] if mirrored else crop])[0]


def test_the_cache_and_the_result_hold_no_embedding(
    recogniser: Recogniser, networks: list[NetworkUnderTest], folder: Path, tmp_path: Path
) -> None:
    with ResultCache(tmp_path / "cache") as cache:
        first = identity_drift(recogniser, networks, read_set(folder), Execution(cache), FACES)
    with ResultCache(tmp_path / "cache") as cache:
        again = identity_drift(recogniser, networks, read_set(folder), Execution(cache), FACES)
    assert first == again
    reference = networks_of_reference(networks)
    shift = IdentityShift(reference, reference, recogniser, FACES)
    arrays = shift.measure(OpenPicture(scenes(1, seed=11)[0]))
    assert not [name for name in arrays if "embedding" in name]
    assert not [name for name, array in arrays.items() if array.ndim == 2 and array.shape[1] == 64]


def test_embeddings_are_written_where_that_is_asked_for_and_not_cached(
    recogniser: Recogniser, networks: list[NetworkUnderTest], folder: Path, tmp_path: Path
) -> None:
    with ResultCache(tmp_path / "cache") as cache:
        identity_drift(recogniser, networks, read_set(folder), Execution(cache), FACES, tmp_path / "kept.npz")
        assert not (tmp_path / "cache" / "results.sqlite").is_file() or not rows(tmp_path / "cache/results.sqlite")
    with np.load(tmp_path / "kept.npz") as kept:
        assert {name.split("/")[-1] for name in kept} == {str(REFERENCE), "onnxruntime int8"}
        for array in kept.values():
            np.testing.assert_allclose(np.linalg.norm(array, axis=1), 1.0)


def rows(database: Path) -> int:
    import sqlite3

    with sqlite3.connect(database) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM measured").fetchone()[0])


def test_a_template_is_the_mean_of_unit_vectors_and_a_face_not_found_gives_no_score() -> None:
    a, b, c = Path("a"), Path("b"), Path("c")
    embeddings = {"a": np.array([1.0, 0.0]), "b": np.array([0.0, 1.0])}
    assert score_of(Pair((a, b), (a,), True), embeddings) == pytest.approx(math.sqrt(0.5))
    assert score_of(Pair((a, c), (b,), True), embeddings) == 0.0
    assert math.isnan(score_of(Pair((c,), (a,), True), embeddings))
    labelled = LabelledPairs("pairs", (Pair((a,), (a,), True), Pair((a,), (c,), True), Pair((a,), (b,), False)))
    figures = figures_of_pairs("x", labelled, embeddings)
    assert (figures.pictures_without_face, figures.genuine_without_score, figures.impostors_without_score) == (1, 1, 0)
    assert figures.roc.tar[-1] == 0.5


def test_pairs_of_a_bundle(
    file: Path, bundle: Bundle, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the command line: a picture and itself are the same, two pictures are not, an empty one has no face."""
    Image.fromarray(np.full((48, 64, 3), 128, np.uint8)).save(folder.parent / "empty.png")
    names = [f"{folder.name}/{index}.png" for index in range(3)]
    lines = [f"{name},{name},1" for name in names] + [f"{names[0]},{name},0" for name in names[1:]]
    (folder.parent / "pairs.csv").write_text("\n".join(["first,second,same", *lines, f"empty.png,{names[0]},1", ""]))
    arguments = ["eval", str(bundle.path), "--pairs", str(folder.parent / "pairs.csv"), "--embedder", str(file)]
    arguments += ["--artifact", "onnxruntime *", "--json", str(tmp_path / "v.json"), "--gate", "none", "--no-cache"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "4 genuine pairs and 2 impostors of 4 pictures" in text
    assert "assumed" in text
    result = read_result(tmp_path / "v.json", VerificationResult)
    for row in result.results:
        assert (row.pictures_without_face, row.genuine_without_score) == (1, 1)
        # A picture is its own equal, at a threshold that no impostor reaches.
        assert max(tar for far, tar in zip(row.roc.far, row.roc.tar, strict=True) if far == 0.0) == 0.75
    write_result(tmp_path / "again.json", result)
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads((tmp_path / "v.json").read_text())


def test_the_face_of_a_picture_is_the_one_asked_for(
    recogniser: Recogniser, networks: list[NetworkUnderTest], folder: Path
) -> None:
    from retinaface_edge.benchmarks.identity.verify import FaceEmbedding

    reference = networks_of_reference(networks)
    picture = OpenPicture(np.asarray(Image.open(folder / "0.png"))[:, :, ::-1].copy())
    from retinaface_edge.benchmarks.inference.faces import FacesFound

    faces = FacesFound(reference).value(FacesFound(reference).measure(picture))
    area = np.prod(faces.boxes[:, 2:] - faces.boxes[:, :2], axis=1) * (faces.scores >= 0.5)
    every = embeddings_of(picture, recogniser, faces)
    for face, index in (("largest", int(area.argmax())), ("highest score", int(faces.scores.argmax()))):
        quantity = FaceEmbedding(reference, recogniser, VerificationProtocol(face=face))  # type: ignore[arg-type]
        np.testing.assert_allclose(quantity.measure(picture)["embedding"][0], every[index], atol=1e-6)


def test_the_order_of_pairs_decides_folds_within_each_kind(
    recogniser: Recogniser, networks: list[NetworkUnderTest], folder: Path
) -> None:
    pictures = [folder / f"{index}.png" for index in range(3)]
    pairs = [Pair((p,), (p,), True) for p in pictures] + [Pair((pictures[0],), (p,), False) for p in pictures[1:]]
    labelled = LabelledPairs("pairs", tuple(pairs) * 10)
    result = verify(recogniser, networks, labelled, Execution())
    for row in result.results:
        assert row.accuracy is not None
        assert len(row.accuracy.folds) == 10
        assert [tar.far for tar in row.tar] == [0.1]


def test_the_gate_judges_identity(
    recogniser: Recogniser, networks: list[NetworkUnderTest], folder: Path, tmp_path: Path
) -> None:
    labelled = LabelledPairs("pairs", tuple(Pair((p,), (p,), True) for p in sorted(folder.iterdir())))
    result = verify(recogniser, networks, labelled, Execution())
    gate = tmp_path / "gate.json"
    rule = {"floor": "verification", "figure": "accuracy", "at_least": 0.5}
    gate.write_text(json.dumps({"format_version": 1, "rules": [rule]}))
    assert all(outcome.passed for outcome in apply_gate(read_gate(gate), result))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing", "is not an ONNX model"),
        (recogniser_bytes(outputs=8), "a recogniser gives one vector of 32"),
        (recogniser_bytes(size="side"), "--embedder-size"),
    ],
)
def test_what_is_no_recogniser_is_one_line(
    content: bytes, message: str, bundle: Bundle, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.onnx").write_bytes(content)
    arguments = ["drift", str(bundle.path), "--images", str(folder), "--embedder", str(tmp_path / "wrong.onnx")]
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_channels_may_come_last(tmp_path: Path) -> None:
    (tmp_path / "last.onnx").write_bytes(recogniser_bytes(channels_last=True))
    assert read_recogniser(tmp_path / "last.onnx", Preprocessing()).record.size_px == SIZE
    with pytest.raises(EmbedderError, match="not 32"):
        read_recogniser(tmp_path / "last.onnx", Preprocessing(size=32))


def test_pairs_and_recogniser_go_together(bundle: Bundle, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(bundle.path), "--pairs", "pairs.csv"]) == 2
    assert "give --pairs and --embedder together" in capsys.readouterr().err
    assert main(["drift", str(bundle.path), "--images", str(folder), "--embedder-std", "3"]) == 2
    assert "--embedder-std is for a recogniser" in capsys.readouterr().err


def test_there_must_be_something_to_compare(
    recogniser: Recogniser, networks: list[NetworkUnderTest], folder: Path
) -> None:
    with pytest.raises(MeasurementError, match="identity compares artifacts"):
        identity_drift(recogniser, networks[:1], read_set(folder), Execution())
