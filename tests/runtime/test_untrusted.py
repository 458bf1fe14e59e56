"""Files that others made are judged before they are read: kind, size, depth of nesting, encoding."""

from __future__ import annotations

import codecs
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from retinaface_edge.runtime import Bundle, BundleError, Detector, ImageError
from retinaface_edge.runtime.bundle.bundle import DEVICE, MANIFEST, serialise
from retinaface_edge.runtime.bundle.signature import SIGNATURE, check_signature
from retinaface_edge.runtime.host.artifact_choice import read_pick
from retinaface_edge.runtime.io.arrays import packed, unpacked
from retinaface_edge.runtime.io.images import read_image
from retinaface_edge.runtime.io.untrusted import (
    DEPTH,
    decoded,
    parse_json,
    path_below,
    read_file,
    read_json,
)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def directory(path: Path) -> None:
    path.mkdir()


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(40 << 30)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        place = os.getcwd()
        os.chdir(path.parent)  # a socket's path is short
        try:
            server.bind(path.name)
        finally:
            os.chdir(place)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


STRANGE = (fifo, endless, directory, sparse, unix_socket, dangling)


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    shutil.copytree(bundle.path, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize("strange", STRANGE)
def test_only_regular_files_of_a_bounded_size_are_read(strange: Callable[[Path], None], tmp_path: Path) -> None:
    strange(tmp_path / "x")
    with pytest.raises(OSError, match=r"not a regular file|more than 1,000,000 bytes|No such file"):
        read_file(tmp_path / "x", 1_000_000)


def test_the_limit_is_the_last_size_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(1000))
    assert read_file(tmp_path / "x", 1000) == bytes(1000)
    with pytest.raises(OSError, match="more than 999 bytes"):
        read_file(tmp_path / "x", 999)


def test_what_has_no_size_and_never_ends_is_cut_off_at_the_limit() -> None:
    """Files of /proc are regular, have size 0, and give what they like."""
    with pytest.raises(OSError, match="more than 10 bytes"):
        read_file(Path("/proc/self/status"), 10)


def test_a_link_is_followed_only_where_links_have_business(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "link", 10) == b"abc"
    with pytest.raises(OSError, match="a link"):
        read_file(tmp_path / "link", 10, links=False)


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("name", [MANIFEST, DEVICE, SIGNATURE, "tflite/model.int8.tflite", "c", "extra"])
def test_no_strange_entry_of_a_bundle_hangs_or_passes(strange: Callable[[Path], None], name: str, copy: Path) -> None:
    path = copy / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    strange(path)
    if name == DEVICE:  # it is of this machine and not of the build: as if it were not there
        assert read_pick(Bundle.load(copy)) is None
    elif not (name == "c" and strange is directory):
        with pytest.raises(BundleError):
            Bundle.load(copy).verify()
    if name.startswith("tflite"):
        with pytest.raises(BundleError):
            Detector.load(copy, "tflite", "int8")


def test_verify_counts_links_to_folders_and_empty_folders(copy: Path, tmp_path: Path) -> None:
    (copy / "more").symlink_to(tmp_path)
    with pytest.raises(BundleError, match="does not list: more"):
        Bundle.load(copy).verify()
    (copy / "more").unlink()
    (copy / "more").mkdir()
    with pytest.raises(BundleError, match="does not list: more"):
        Bundle.load(copy).verify()
    (copy / "more").rmdir()
    Bundle.load(copy).verify()


def test_verify_checks_the_artifacts_against_the_list_of_files(copy: Path) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["artifacts"][0]["files"][0]["sha256"] = "0" * 64
    (copy / MANIFEST).write_bytes(serialise(manifest))
    with pytest.raises(BundleError, match="differently in its list of files"):
        Bundle.load(copy).verify()


def test_a_manifest_that_promises_a_file_of_40_gigabytes_is_refused(copy: Path) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    for entry in (manifest["files"][0], manifest["artifacts"][0]["files"][0]):
        entry["bytes"] = 40 << 30
    (copy / MANIFEST).write_bytes(serialise(manifest))
    with pytest.raises(BundleError, match="at most 1,073,741,824 are accepted"):
        Bundle.load(copy)


@pytest.mark.parametrize("content", [b"", b"x" * 63, b"x" * 65, b"x" * 5000])
def test_what_can_be_no_signature_is_said_without_a_key(content: bytes, copy: Path) -> None:
    (copy / SIGNATURE).write_bytes(content)
    with pytest.raises(BundleError, match="is not a signature"):
        Bundle.load(copy).verify()


def test_a_key_that_is_a_pipe_does_not_hang(copy: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    os.mkfifo(tmp_path / "key.pub")
    with pytest.raises(BundleError, match=r"key\.pub cannot be read \(it is a pipe"):
        check_signature(b"", copy / SIGNATURE, tmp_path / "key.pub")


@pytest.mark.parametrize("strange", STRANGE)
def test_no_strange_picture_hangs(strange: Callable[[Path], None], tmp_path: Path) -> None:
    strange(tmp_path / "x.jpg")
    with pytest.raises(ImageError, match=r"x\.jpg cannot be read as a picture"):
        read_image(tmp_path / "x.jpg")


def test_pipes_and_devices_are_not_opened_to_see_what_they_are(tmp_path: Path) -> None:
    """A writer that waits for a reader goes on waiting: opening a device may make it act."""
    os.mkfifo(tmp_path / "pipe")
    script = f"open({str(tmp_path / 'pipe')!r}, 'w').close(); print('opened')"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT) as writer:
        with pytest.raises(OSError, match="a pipe"):
            read_file(tmp_path / "pipe", 10)
        assert writer.poll() is None
        writer.kill()


@given(
    st.recursive(
        st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_json_of_any_shape_is_read_as_the_standard_library_reads_it(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize("deep", ["[" * (DEPTH + 1) + "]" * (DEPTH + 1), '{"a":' * 99999, "[" * 5_000_000])
def test_deep_json_is_refused_and_brackets_in_strings_are_not_depth(deep: str) -> None:
    with pytest.raises(ValueError, match="nested deeper than"):
        parse_json(deep.encode())
    text = json.dumps(["[" * 1000, '"\\' + "{" * 1000])
    assert parse_json(text.encode()) == json.loads(text)
    assert parse_json(b"[" * DEPTH + b"]" * DEPTH)
    assert parse_json(json.dumps([[] for _ in range(1000)]).encode())


def test_text_is_read_as_people_write_it_on_windows(tmp_path: Path) -> None:
    for content in (b"\xef\xbb\xbf[1]", "[1]".encode("utf-16"), codecs.BOM_UTF16_BE + "[1]".encode("utf-16-be")):
        (tmp_path / "x.json").write_bytes(content)
        assert read_json(tmp_path / "x.json") == [1]
    assert decoded(b"\xff", errors="replace") == "\N{REPLACEMENT CHARACTER}"
    with pytest.raises(ValueError, match="decode"):
        decoded(b"\xff")


def test_backslashes_in_a_list_separate_folders_unless_a_file_has_them(tmp_path: Path) -> None:
    assert path_below(tmp_path, "a\\b.jpg") == tmp_path / "a" / "b.jpg"
    (tmp_path / "a\\b.jpg").write_bytes(b"")
    assert path_below(tmp_path, "a\\b.jpg") == tmp_path / "a\\b.jpg"
    assert path_below(tmp_path, "a/b.jpg") == tmp_path / "a" / "b.jpg"


def test_arrays_survive_and_those_that_promise_more_than_they_hold_are_refused() -> None:
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.zeros((0, 4)),
        "c": np.asfortranarray(np.eye(3)[:2]),
    }
    read = unpacked(packed(arrays), 1 << 20)
    assert {name: (value.dtype, value.tolist()) for name, value in read.items()} == {
        name: (value.dtype, value.tolist()) for name, value in arrays.items()
    }
    with pytest.raises(ValueError, match="more than 100 bytes"):
        unpacked(packed(arrays), 100)
    with pytest.raises(ValueError, match="an array of"):
        unpacked(stored(b"(39000000000000,)", b"abc"), 1 << 20)
    for content in (b"", b"PK", packed({"a": np.array([None])}), stored(b"(", b"")):
        with pytest.raises(ValueError, match=r"it ha|it holds"):
            unpacked(content, 1 << 20)


def stored(shape: bytes, data: bytes) -> bytes:
    """An archive with one array of bytes, whose header says `shape`."""
    import io
    import zipfile

    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': " + shape + b"}\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data)
    return buffer.getvalue()


@pytest.mark.parametrize("value", ["", " ", "\t"])
def test_a_key_that_is_set_but_empty_does_not_switch_checking_off(
    value: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETINAFACE_EDGE_KEY", value)
    with pytest.raises(BundleError, match="set but empty"):
        Bundle.load(copy)
    monkeypatch.delenv("RETINAFACE_EDGE_KEY")
    Bundle.load(copy)
