"""Releases: a device takes no bundle whose last day is over, and none that is older than it accepts."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import date, timedelta
from pathlib import Path

import pytest

from retinaface_edge.cli.main import main
from retinaface_edge.export.bundle_writer import Content, write_bundle
from retinaface_edge.runtime import Bundle, BundleError, Spec
from retinaface_edge.runtime.artifact import ArtifactId, Backend, Precision
from retinaface_edge.runtime.bundle.bundle import MANIFEST, serialise
from retinaface_edge.runtime.bundle.release import LEAST_VERSION, Release, check_release, parse_release, release_of
from retinaface_edge.runtime.bundle.signature import KEY_VARIABLE, SIGNATURE, signer
from retinaface_edge.runtime.io import sealed

pytest.importorskip("cryptography")
FP32 = ArtifactId(Backend.ONNXRUNTIME, Precision.FP32)
TODAY = date.today()


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(sealed.STATE_VARIABLE, str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("old", "new", "other"):
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", f"{name}.pem"], cwd=folder, check=True)
        command = ["openssl", "pkey", "-in", f"{name}.pem", "-pubout", "-out", f"{name}.pub"]
        subprocess.run(command, cwd=folder, check=True)
    return folder


def signed(folder: Path, keys: Path, release: Release | None, key: str = "old") -> Path:
    content = Content(Spec(), {"onnx/model.onnx": b"abc"}, {FP32: ["onnx/model.onnx"]}, {}, release=release)
    output = folder / f"bundle-{os.urandom(4).hex()}"
    write_bundle(content, output, signer(keys / f"{key}.pem"))
    return output


def test_a_release_is_in_the_signed_manifest_and_nowhere_else(tmp_path: Path, keys: Path) -> None:
    path = signed(tmp_path, keys, parse_release("7,2999-12-31"))
    assert release_of(Bundle.load(path, keys / "old.pub").manifest) == Release(7, date(2999, 12, 31))
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_bytes(serialise({**manifest, "release": {"version": 8, "expires": None}}))
    with pytest.raises(BundleError, match="was not made with the key"):
        Bundle.load(path, keys / "old.pub")
    assert "release" not in json.loads((signed(tmp_path, keys, None) / MANIFEST).read_text())


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", "", "7,", "7,2027-13-01", "7,tomorrow", "٣", "9" * 17])
def test_what_is_no_release_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_release(text)


@pytest.mark.parametrize("fields", [3, {}, {"version": "7"}, {"version": True}, {"version": 7, "expires": "soon"}])
def test_a_release_that_makes_no_sense_is_no_bundle(fields: object, tmp_path: Path, keys: Path) -> None:
    path = signed(tmp_path, keys, None)
    manifest = serialise({**json.loads((path / MANIFEST).read_text()), "release": fields})
    (path / MANIFEST).write_bytes(manifest)
    (path / SIGNATURE).write_bytes(signer(keys / "old.pem")(manifest))
    with pytest.raises(BundleError, match="is invalid"):
        Bundle.load(path, keys / "old.pub")


def test_the_last_day_is_the_last(tmp_path: Path, keys: Path) -> None:
    for days, good in ((1, True), (0, True), (-1, False)):
        path = signed(tmp_path, keys, Release(1, TODAY + timedelta(days=days)))
        if good:
            Bundle.load(path, keys / "old.pub")
        else:
            with pytest.raises(BundleError, match="was valid until"):
                Bundle.load(path, keys / "old.pub")
    check_release(Release(1, date(2030, 1, 1)), "x", date(2030, 1, 1))


def test_an_older_release_is_refused_once_a_newer_one_was_asked_for(
    tmp_path: Path, keys: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {version: signed(tmp_path, keys, Release(version)) for version in (6, 7, 8)}
    without, key = signed(tmp_path, keys, None), keys / "old.pub"
    for path in (*paths.values(), without):
        Bundle.load(path, key)
    assert main(["verify", str(paths[6]), "--key", str(key), "--min-version", "7"]) == 2
    assert "has version 6, and --min-version is 7" in capsys.readouterr().err
    assert not (state / LEAST_VERSION).exists()
    assert main(["verify", str(paths[7]), "--key", str(key), "--min-version", "7"]) == 0
    assert "version 7" in capsys.readouterr().out
    for path, words in ((paths[6], "has version 6, and this device accepts 7"), (without, "has no version")):
        with pytest.raises(BundleError, match=words):
            Bundle.load(path, key)
    Bundle.load(paths[7], key)
    # It is never lowered, and what was kept cannot be changed by who does not know the secret.
    assert main(["verify", str(paths[8]), "--key", str(key), "--min-version", "3"]) == 0
    with pytest.raises(BundleError, match="accepts 7"):
        Bundle.load(paths[6], key)
    kept = (state / LEAST_VERSION).read_bytes()
    (state / LEAST_VERSION).write_bytes(kept[:-1] + b"1")
    with pytest.raises(BundleError, match="was changed"):
        Bundle.load(paths[8], key)


def test_a_minimum_needs_a_key(tmp_path: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = signed(tmp_path, keys, Release(7))
    assert main(["verify", str(path), "--min-version", "7"]) == 2
    assert "give --key too" in capsys.readouterr().err


def test_any_of_several_keys_will_do_and_each_must_be_one(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = signed(tmp_path, keys, None, "new")
    both = ["--key", str(keys / "old.pub"), "--key", str(keys / "new.pub")]
    assert main(["verify", str(path), *both]) == 0
    assert f"signed by {keys / 'new.pub'}" in capsys.readouterr().out
    monkeypatch.setenv(KEY_VARIABLE, os.pathsep.join([str(keys / "old.pub"), str(keys / "new.pub")]))
    Bundle.load(path)
    monkeypatch.setenv(KEY_VARIABLE, os.pathsep.join([str(keys / "old.pub"), str(keys / "other.pub")]))
    with pytest.raises(BundleError, match=r"was not made with the key .*old\.pub or .*other\.pub"):
        Bundle.load(path)
    monkeypatch.setenv(KEY_VARIABLE, str(keys / "new.pub") + os.pathsep)
    with pytest.raises(BundleError, match="names an empty path"):
        Bundle.load(path)
    monkeypatch.setenv(KEY_VARIABLE, os.pathsep.join([str(keys / "none.pub"), str(keys / "new.pub")]))
    with pytest.raises(BundleError, match=r"none\.pub cannot be read"):
        Bundle.load(path)
