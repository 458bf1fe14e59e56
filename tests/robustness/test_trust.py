"""Supply chain: tampered, unsigned and hostile input is refused before anything parses it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from robustness.trust.flips import flip_bytes
from untrained import random_model

from retinaface_edge.cli.main import main
from retinaface_edge.export.bundle_writer import Content, write_bundle
from retinaface_edge.export.checkpoints import state_dicts
from retinaface_edge.export.checkpoints.demo import demo_file
from retinaface_edge.export.checkpoints.onnx_graph import stored_array
from retinaface_edge.export.checkpoints.source import CheckpointError, read_checkpoint
from retinaface_edge.runtime import Bundle, BundleError, Detector, ImageError, Spec
from retinaface_edge.runtime.artifact import ArtifactId, Backend, Precision
from retinaface_edge.runtime.bundle.bundle import MANIFEST, serialise
from retinaface_edge.runtime.bundle.model_card import model_card
from retinaface_edge.runtime.bundle.sbom import sbom
from retinaface_edge.runtime.bundle.signature import KEY_VARIABLE, SIGNATURE, signer
from retinaface_edge.runtime.io.images import read_image

FP32 = ArtifactId(Backend.ONNXRUNTIME, Precision.FP32)


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    shutil.copytree(bundle.path, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of keys by OpenSSL, as the manual tells users to make them."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "theirs"):
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", f"{name}.pem"], cwd=folder, check=True)
        subprocess.run(
            ["openssl", "pkey", "-in", f"{name}.pem", "-pubout", "-out", f"{name}.pub"], cwd=folder, check=True
        )
    subprocess.run(["openssl", "genpkey", "-algorithm", "x25519", "-out", "other.pem"], cwd=folder, check=True)
    subprocess.run(["openssl", "pkey", "-in", "other.pem", "-pubout", "-out", "other.pub"], cwd=folder, check=True)
    (folder / "text.pem").write_text("no key")
    return folder


@pytest.fixture
def signed(copy: Path, keys: Path) -> Path:
    (copy / SIGNATURE).write_bytes(signer(keys / "mine.pem")((copy / MANIFEST).read_bytes()))
    return copy


def test_flipped_bytes_are_refused_before_a_backend_is_called(copy: Path) -> None:
    refusals = flip_bytes(Bundle.load(copy), 300, seed=1)
    assert (refusals.by_verify, refusals.by_load) == (300, 300)
    Bundle.load(copy).verify()


def test_flipped_bytes_of_a_signed_bundle_are_refused_with_the_signature(signed: Path, keys: Path) -> None:
    signature = (signed / SIGNATURE).read_bytes()
    for index in range(len(signature)):
        (signed / SIGNATURE).write_bytes(signature[:index] + bytes([signature[index] ^ 1]) + signature[index + 1 :])
        with pytest.raises(BundleError, match="was not made with the key"):
            Bundle.load(signed, keys / "mine.pub")
    for changed in (b"", signature[:-1], signature + b"\n"):
        (signed / SIGNATURE).write_bytes(changed)
        with pytest.raises(BundleError, match="was not made with the key"):
            Bundle.load(signed, keys / "mine.pub")


def test_a_key_decides_what_is_loaded(
    signed: Path, bundle: Bundle, keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(signed), "--key", str(keys / "mine.pub")]) == 0
    assert "all as built, signed by" in capsys.readouterr().out
    assert main(["verify", str(signed), "--key", str(keys / "theirs.pub")]) == 2
    assert main(["verify", str(bundle.path), "--key", str(keys / "mine.pub")]) == 2
    assert "is not signed; build it with --sign" in capsys.readouterr().err
    monkeypatch.setenv(KEY_VARIABLE, str(keys / "mine.pub"))
    Detector.load(signed, "tflite", "int8").close()
    with pytest.raises(BundleError, match="is not signed"):
        Detector.load(bundle.path, "tflite", "int8")


def test_a_manifest_that_was_written_again_is_whole_but_not_signed(signed: Path, keys: Path) -> None:
    """Who can write the folder can give the manifest its right digest; the signature is what stops that."""
    manifest = json.loads((signed / MANIFEST).read_text())
    (signed / MANIFEST).write_bytes(serialise({**manifest, "provenance": {}}))
    Bundle.load(signed).verify()
    with pytest.raises(BundleError, match="was not made with the key"):
        Bundle.load(signed, keys / "mine.pub")


def test_signing_is_part_of_the_build_and_gives_the_same_bytes(tmp_path: Path, keys: Path) -> None:
    content = Content(Spec(), {"onnx/model.onnx": b"abc"}, {FP32: ["onnx/model.onnx"]}, {})
    sign = signer(keys / "mine.pem")
    write_bundle(content, tmp_path / "a", sign)
    write_bundle(content, tmp_path / "b", sign)
    assert (tmp_path / "a" / SIGNATURE).read_bytes() == (tmp_path / "b" / SIGNATURE).read_bytes()
    Bundle.load(tmp_path / "a", keys / "mine.pub").verify()


@pytest.mark.parametrize("name", ["none.pem", "text.pem", "other.pem", "mine.pub"])
def test_what_is_no_private_key_is_refused_before_the_build(
    name: str, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "--output", str(tmp_path / "out"), "--sign", str(keys / name)]) == 2
    assert name in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["none.pub", "text.pem", "other.pub", "mine.pem"])
def test_what_is_no_public_key_is_refused(name: str, keys: Path, signed: Path) -> None:
    with pytest.raises(BundleError, match=name):
        Bundle.load(signed, keys / name)


def test_without_cryptography_signing_and_checking_say_what_to_install(
    signed: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for call in (lambda: signer(keys / "mine.pem"), lambda: Bundle.load(signed, keys / "mine.pub")):
        with pytest.raises(BundleError, match=r"pip install 'retinaface-edge\[sign\]'"):
            call()
    Bundle.load(signed).verify()


def test_the_bill_of_materials_follows_the_schema_and_names_everything(bundle: Bundle) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = sbom(bundle)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert text == sbom(Bundle.load(bundle.path))
    content = json.loads(text)
    hashes = {
        part["name"]: part["hashes"][0]["content"]
        for component in content["components"]
        for part in (component, *component.get("components", ()))
        if "hashes" in part
    }
    for file in bundle.files:
        assert hashes[file.path] == file.sha256
    assert bundle.manifest["provenance"]["checkpoint"]["sha256"] in hashes.values()
    assert bundle.manifest["provenance"]["calibration"]["sha256"] in hashes.values()
    tools = {tool["name"]: tool for tool in content["metadata"]["tools"]["components"]}
    assert {"torch", "onnx", "openvino", "numpy"} <= set(tools)
    assert all(tool["licenses"][0]["license"]["name"] not in ("", "unknown") for tool in tools.values())
    references = {component["bom-ref"] for component in content["components"]} | {"bundle"}
    for dependency in content["dependencies"]:
        assert {dependency["ref"], *dependency["dependsOn"]} <= references
    needs = {dependency["ref"]: set(dependency["dependsOn"]) for dependency in content["dependencies"]}
    (calibration,) = (c["bom-ref"] for c in content["components"] if c["name"].endswith("calibration images"))
    for artifact in needs.pop("bundle"):
        assert (calibration in needs[artifact]) == ("int8" in artifact), artifact


def test_the_model_card_says_what_it_was_made_from(bundle: Bundle, tmp_path: Path) -> None:
    card, bill = tmp_path / "card.md", tmp_path / "sbom.json"
    assert main(["inspect", str(bundle.path), "--model-card", str(card), "--sbom", str(bill)]) == 0
    text = card.read_text()
    assert text == model_card(bundle)
    assert bill.read_text() == sbom(bundle)
    for artifact in bundle.artifacts:
        assert artifact.files[0].sha256 in text
    for fact in ("24 images", bundle.manifest["digest"], bundle.manifest["provenance"]["checkpoint"]["sha256"]):
        assert fact in text


def test_a_manifest_without_provenance_has_no_bill_of_materials(copy: Path) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_bytes(serialise({**manifest, "provenance": {}}))
    with pytest.raises(BundleError, match="does not say where it came from"):
        sbom(Bundle.load(copy))


@pytest.mark.parametrize("place", ["weights.data", "../../secret", "/etc/hostname"])
def test_onnx_weights_in_another_file_are_refused_and_not_read(place: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 4096)
    model = onnx.load_from_string(demo_file().content)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    path = tmp_path / "a" / "b" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="keeps weights in another file"):
        read_checkpoint(path)


@pytest.mark.parametrize("change", ["dims", "type", "bytes"])
def test_onnx_weights_that_do_not_fit_their_shape_are_refused(change: str, tmp_path: Path) -> None:
    model = onnx.load_from_string(demo_file().content)
    tensor = model.graph.initializer[0]
    if change == "dims":
        tensor.dims[0] = 1 << 40
    elif change == "type":
        tensor.data_type = 999
    else:
        tensor.raw_data = tensor.raw_data[:-1]
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match=r"model\.onnx"):
        read_checkpoint(tmp_path / "model.onnx")


def test_an_archive_writes_nowhere(tmp_path: Path) -> None:
    torch.save(random_model(seed=1).state_dict(), tmp_path / "model.pth")
    with zipfile.ZipFile(tmp_path / "model.pth", "a") as archive:
        archive.writestr("../../outside.txt", "gone")
        archive.writestr("/tmp/outside.txt", "gone")
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises(CheckpointError, match="plain tensors"):
        read_checkpoint(tmp_path / "model.pth")
    assert sorted(tmp_path.parent.rglob("*")) == before
    assert not Path("/tmp/outside.txt").exists()


def test_an_archive_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pth"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a/data.pkl", "w") as member,
    ):
        for _ in range(40):
            member.write(bytes(1 << 20))
    monkeypatch.setattr(state_dicts, "MAX_BYTES", 32 << 20)
    monkeypatch.setattr(state_dicts.torch, "load", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(CheckpointError, match="would unpack to 41,943,040 bytes"):
        read_checkpoint(path)


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises that many pixels."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    data = zlib.compress(bytes(1 << 16))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.fixture
def no_decoding() -> Iterator[None]:
    from PIL import ImageFile

    load = ImageFile.ImageFile.load
    ImageFile.ImageFile.load = lambda self: pytest.fail("it was decoded")  # type: ignore[method-assign]
    yield
    ImageFile.ImageFile.load = load  # type: ignore[method-assign]


@pytest.mark.parametrize("size", [(30_000, 30_000), (200_000, 1_000), (1 << 30, 2), (1, 1)])
def test_image_bombs_are_refused_before_they_are_decoded(
    size: tuple[int, int], tmp_path: Path, no_decoding: None
) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb(*size))
    with pytest.raises(ImageError, match=r"bomb\.png"):
        read_image(tmp_path / "bomb.png")


def test_the_limit_of_pictures_is_ours_when_pillows_is_off(
    tmp_path: Path, no_decoding: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program may have set its own limit, or none."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "bomb.png").write_bytes(bomb(30_000, 30_000))
    with pytest.raises(ImageError, match="30000x30000"):
        read_image(tmp_path / "bomb.png")


def test_only_the_documented_formats_are_parsed_whatever_the_name(tmp_path: Path) -> None:
    for kind in ("PPM", "TGA", "PCX", "SGI"):
        Image.new("RGB", (32, 32)).save(tmp_path / "picture", format=kind)
        (tmp_path / "picture.png").write_bytes((tmp_path / "picture").read_bytes())
        with pytest.raises(ImageError, match="cannot be read as a picture"):
            read_image(tmp_path / "picture.png")


def test_links_in_a_bundle_do_not_lead_out_of_it(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    (copy / "layers.md").unlink()
    (copy / "layers.md").symlink_to(tmp_path / "secret")
    with pytest.raises(BundleError):
        Bundle.load(copy).verify()
    os.remove(copy / "layers.md")


def test_numbers_of_an_onnx_checkpoint_survive_the_checks() -> None:
    """The refusals above refuse nothing else: a graph with a typed field instead of raw bytes is read."""
    tensor = helper.make_tensor("x", TensorProto.FLOAT, [2], [1.0, 2.0])
    assert np.array_equal(numpy_helper.to_array(tensor), stored_array(tensor, "model.onnx"))
