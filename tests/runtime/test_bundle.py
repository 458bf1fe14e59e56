"""Bundles: any changed byte is found, and nothing is loaded from a damaged one."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retinaface_edge.export import bundle_writer as write
from retinaface_edge.export.bundle_writer import Content, check_output, write_bundle
from retinaface_edge.runtime import Bundle, BundleError, Detector, Spec, SpecError
from retinaface_edge.runtime.artifact import ArtifactId, Backend, Precision
from retinaface_edge.runtime.bundle.bundle import MANIFEST, serialise

FP32 = ArtifactId(Backend.ONNXRUNTIME, Precision.FP32)


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    shutil.copytree(bundle.path, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_fresh_bundle_verifies_and_holds_what_the_design_says(bundle: Bundle) -> None:
    bundle.verify()
    names = {(artifact.backend, artifact.precision) for artifact in bundle.artifacts}
    assert names == {(b, p) for b in ("onnxruntime", "openvino", "tflite") for p in ("fp32", "int8")}
    assert {file.path.split("/")[0] for file in bundle.files} >= {"onnx", "openvino", "tflite", "calibration.json"}
    assert bundle.manifest["provenance"]["calibration"]["images"] == 24
    assert Spec.from_json(bundle.manifest["spec"]) == bundle.spec


def test_the_manifest_says_nothing_of_time_place_or_person(bundle: Bundle) -> None:
    text = (bundle.path / MANIFEST).read_text()
    assert str(bundle.path) not in text
    assert str(Path.home()) not in text
    assert os.uname().nodename not in text


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_is_found(bundle: Bundle, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([*(file.path for file in bundle.files), MANIFEST]))
    content = (bundle.path / path).read_bytes()
    position = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[position] ^= data.draw(st.integers(1, 255))
    try:
        (bundle.path / path).write_bytes(flipped)
        with pytest.raises(BundleError, match="changed"):
            Bundle.load(bundle.path).verify()
    finally:
        (bundle.path / path).write_bytes(content)


def test_a_damaged_artifact_is_not_loaded_and_others_still_are(copy: Path) -> None:
    artifact = copy / "tflite" / "model.int8.tflite"
    artifact.write_bytes(artifact.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"model\.int8\.tflite was changed"):
        Detector.load(copy, backend="tflite", precision="int8")
    Detector.load(copy, backend="tflite", precision="fp32")


def test_added_and_removed_files_are_found(copy: Path) -> None:
    (copy / "extra.txt").write_text("hello")
    with pytest.raises(BundleError, match=r"does not list: extra\.txt"):
        Bundle.load(copy).verify()
    (copy / "extra.txt").unlink()
    (copy / "onnx" / "model.fp32.onnx").unlink()
    with pytest.raises(BundleError, match=r"model\.fp32\.onnx cannot be read"):
        Bundle.load(copy).verify()


def rewritten(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_bytes(serialise({**manifest, **changes}))


def test_paths_that_leave_the_bundle_are_refused(copy: Path) -> None:
    for path in ("../secret", "/etc/passwd", "a/../../b", "..\\secret"):
        rewritten(copy, files=[{"path": path, "bytes": 1, "sha256": "0" * 64}])
        with pytest.raises(BundleError, match="points outside the bundle"):
            Bundle.load(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 4}, "bundle format 4, this version reads 1, 2 and 3"),
        ({"spec": {"width": 640}}, "is invalid"),
        ({"artifacts": [{"backend": "tflite"}]}, "is invalid"),
        ({"files": 3}, "is invalid"),
        ({"artifacts": [{"backend": "tflite", "precision": "int8", "files": []}]}, "tflite int8 has no files"),
        ({"meshes": [{"backend": "tflite", "precision": "int8", "files": []}]}, "tflite int8 has no files"),
    ],
)
def test_manifests_that_make_no_sense_are_refused(copy: Path, changes: dict[str, object], message: str) -> None:
    rewritten(copy, **changes)
    with pytest.raises(BundleError, match=message):
        Bundle.load(copy)


@given(st.binary(max_size=200) | st.text().map(str.encode) | st.just(b"[" * 100_000) | st.just(b'{"a": NaN}'))
def test_any_bytes_as_manifest_give_one_clear_error(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / MANIFEST).write_bytes(content)
        with pytest.raises(BundleError):
            Bundle.load(folder)


def test_the_spec_of_every_size_survives_the_manifest() -> None:
    for spec in (Spec(64, 64), Spec(640, 480), Spec(1920, 1088), Spec(64, 64, mean=(0, 255, 104))):
        assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strides": [1, 2, 4]}, "anchors"),
        ({"mesh": 5}, "spec"),
        ({"mesh": {"channels": 1 << 20}}, "mesh"),
        ({"mesh": {"batch": 0}}, "mesh"),
        ({"mesh": {"vertices": 467}}, "468 vertices"),
        ({"strides": [7, 16, 32]}, "stride"),
        ({"strides": [0, 16, 32]}, "stride"),
        ({"mean": [104, 117]}, "do not fit together"),
        ({"mean": [104, 117, 123, 0]}, "do not fit together"),
        ({"variances": [0.1, 0.2, 0.3]}, "do not fit together"),
        ({"strides": [8, 16]}, "do not fit together"),
        ({"strides": [], "anchor_sizes": []}, "do not fit together"),
        ({"mean": [104, 117, 256]}, "out of range"),
        ({"mean": [-1, 117, 123]}, "out of range"),
        ({"anchor_sizes": [[16, 0], [64], [256]]}, "out of range"),
        ({"anchor_sizes": [[], [], []]}, "out of range"),
        ({"anchor_sizes": [[16], [64], [65537]]}, "out of range"),
        ({"variances": [0.0, 0.2]}, "variance is not between"),
        ({"variances": [0.1, 1.01]}, "variance is not between"),
        ({"heads": [{"name": "box", "channels": 4}]}, "heads are not exactly score, box, landmark"),
        ({"strides": [4, 16, 32], "anchor_sizes": [[16] * 14, [64], [256]]}, "more than 262144 anchors"),
    ],
)
def test_a_spec_that_would_take_all_memory_or_makes_no_sense_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        Spec.from_json({**Spec().to_json(), **changes})


def test_a_spec_at_the_edge_of_what_is_allowed_is_read() -> None:
    """Sizes, mean and variances at their limits; and 262,144 anchors, the most that there may be, by 512 × 512."""
    edge = Spec(512, 512, mean=(0, 255, 9), strides=(2,), anchor_sizes=((1, 9, 65535, 65536),), variances=(1e-9, 1.0))
    assert len(edge.anchors) == 262144
    assert Spec.from_json(json.loads(json.dumps(edge.to_json()))) == edge


def test_a_missing_artifact_is_told_with_those_that_are_there(bundle: Bundle) -> None:
    words = "has no artifact for tflite int4; it has: "
    present = ", ".join(f"{artifact.backend} {artifact.precision}" for artifact in bundle.artifacts)
    with pytest.raises(BundleError, match=f"{words}{present}$"):
        bundle.artifact("tflite", "int4")
    with pytest.raises(BundleError, match=f"{words}none$"):
        dataclasses.replace(bundle, artifacts=()).artifact("tflite", "int4")


@pytest.fixture
def content(spec: Spec) -> Content:
    return Content(spec, {"onnx/model.onnx": b"abc"}, {FP32: ["onnx/model.onnx"]}, {})


def test_a_failed_write_leaves_the_old_bundle_and_no_scratch(
    content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(content, tmp_path / "bundle")
    before = (tmp_path / "bundle" / MANIFEST).read_bytes()

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write.Path, "write_bytes", full)
    with pytest.raises(BundleError, match="No space left on device"):
        write_bundle(dataclasses.replace(content, provenance={"another": 1}), tmp_path / "bundle")
    monkeypatch.undo()
    assert (tmp_path / "bundle" / MANIFEST).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_only_a_bundle_is_ever_replaced(content: Content, tmp_path: Path) -> None:
    output = tmp_path / "out"
    check_output(output, replace=False)
    output.mkdir()
    check_output(output, replace=False)  # an empty folder holds nothing to lose
    (output / "precious.txt").write_text("mine")
    for replace in (False, True):
        with pytest.raises(BundleError, match="exists"):
            check_output(output, replace)
    (output / "precious.txt").unlink()
    write_bundle(content, output)
    with pytest.raises(BundleError, match="--force"):
        check_output(output, replace=False)
    check_output(output, replace=True)
    write_bundle(content, output)
    Bundle.load(output).verify()
