"""Targets for files: kinds of file, names, text, arrays, `device.json`, releases, both caches and `inspect`."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import io
import json
import os
import re
import shutil
import socket
import sqlite3
import stat
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from edits import as_json, edited

from retinaface_edge.benchmarks.inference.result_cache import FILE, ResultCache, Stored
from retinaface_edge.cli.outputs import FaceTable, names_of, sentence, write_blurred
from retinaface_edge.cli.system import inspect
from retinaface_edge.export import stage_cache
from retinaface_edge.runtime import Bundle, BundleError
from retinaface_edge.runtime.backends.openvino_cache import CACHE, compiled
from retinaface_edge.runtime.bundle.bundle import DEVICE, MANIFEST, SIGNATURE, serialise
from retinaface_edge.runtime.bundle.release import check_release, parse_release, release_of
from retinaface_edge.runtime.host.artifact_choice import read_pick
from retinaface_edge.runtime.io.arrays import packed, unpacked
from retinaface_edge.runtime.io.sealed import STATE_VARIABLE
from retinaface_edge.runtime.io.untrusted import DEPTH, parse_json, read_file
from retinaface_edge.runtime.ops.faces import Faces
from retinaface_edge.runtime.text import address, escaped, json_line, printable, without_credentials

MEMORY = Path("/dev/shm")
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-files-", dir=MEMORY if MEMORY.is_dir() else None))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
os.environ[STATE_VARIABLE] = str(FOLDER / "state")
STAGE_KEY, ROW_KEY = "a" * 64, "b" * 64


def placed(path: Path, data: bytes) -> None:
    """Put something at `path`: a file with the bytes, or what the first of them says it is instead."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    kind = data[0] % 16 if data else 15
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to(("/dev/zero", "/etc/passwd", "nowhere", ".", path.name)[data[-1] % 5])
    elif kind == 2:
        path.mkdir()
    elif kind == 3:
        with path.open("wb") as file:
            file.truncate(40 << 30)
    elif kind == 4:
        _device(path)
    elif kind == 5:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
            server.bind(str(FOLDER / "socket"))  # the address of a socket is short
        os.rename(FOLDER / "socket", path)
    else:
        path.write_bytes(data[1:])


def _device(path: Path) -> None:
    """`/dev/zero` itself where this user may make it, else a link to it."""
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    except OSError:
        path.symlink_to("/dev/zero")


def any_file(data: bytes) -> None:
    """`read_file` on every kind of file: the bytes, or `OSError`, and no waiting."""
    path = FOLDER / "any"
    placed(path, data)
    with contextlib.suppress(OSError):
        content = read_file(path, 1 << 16, links=bool(data and data[-1] % 2))
        assert content == data[1:] or path.is_symlink()


def any_json(data: bytes) -> None:
    """`parse_json`: what the standard library reads, unless it is nested too deeply."""
    try:
        value = parse_json(data)
    except ValueError:
        return
    assert _depth(value) <= DEPTH


def _depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max(map(_depth, inside), default=0)


def any_text(data: bytes) -> None:
    """Names and URLs, as they are printed and written."""
    text = os.fsdecode(data.replace(b"\0", b""))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", escaped(text))
    assert "\n" not in printable(text)
    assert json.loads(json_line({text: text})) == {text: text}
    assert json_line(text).isprintable() or not re.search("[\x00-\x1f\x7f-\x9f]", json_line(text))
    without_credentials(text), address(text)
    assert "secret" not in without_credentials(f"rtsp://user:secret@{printable(text).replace('secret', '')}")


def arrays(data: bytes) -> None:
    """`unpacked` on damaged archives: arrays within the limit, or `ValueError`."""
    content = bytearray(ARRAYS)
    for start in range(0, len(data) - 2, 3):
        content[int.from_bytes(data[start : start + 2], "little") % len(content)] ^= data[start + 2]
    with contextlib.suppress(ValueError):
        assert sum(value.nbytes for value in unpacked(bytes(content), 1 << 16).values()) <= 1 << 16


def release(data: bytes) -> None:
    """Releases from the command line and from manifests."""
    with contextlib.suppress(ValueError):
        parse_release(data.decode("latin-1"))
    changed = edited({"release": {"version": 7, "expires": "2999-01-01"}}, data)
    if isinstance(changed, dict):
        with contextlib.suppress(ValueError, BundleError):
            check_release(release_of(changed), "x")


def stage(data: bytes) -> None:
    """An entry of the stage cache with anything in the place of one of its files: what was stored, or nothing."""
    folder, files = FOLDER / "stages", {"model": b"abc", "about": b"{}"}
    stage_cache.write_entry(folder, STAGE_KEY, files)
    name = (stage_cache.LIST, "model", "about", "")[data[-1] % 4 if data else 0]
    target = folder / STAGE_KEY / name if name else folder / STAGE_KEY
    before = target.read_bytes() if name else None
    placed(target, data)
    read = stage_cache.read_entry(folder, STAGE_KEY)
    assert read is None or (read == files and target.read_bytes() == before)


def row(data: bytes) -> None:
    """A row of the result cache with other bytes: what was stored, or nothing."""
    value = Stored((4, 3), {"a": np.arange(3)})
    with ResultCache(FOLDER) as cache:
        cache.put({ROW_KEY: value})
        with contextlib.closing(sqlite3.connect(FOLDER / FILE)) as database, database:
            column = ("arrays", "width", "height")[data[0] % 3 if data else 0]
            changed: Any = data[1:] if column == "arrays" else int.from_bytes(data[1:5], "little")
            (before,) = database.execute(f"SELECT {column} FROM measured WHERE key = ?", (ROW_KEY,)).fetchone()
            database.execute(f"UPDATE measured SET {column} = ? WHERE key = ?", (changed, ROW_KEY))
        assert (cache.get(ROW_KEY) is None) == (changed != before)


class _Compiler:
    """As OpenVINO's core and its compiled model, but a model is its name."""

    def import_model(self, blob: io.BytesIO, device: str, options: dict[str, str]) -> bytes:
        return blob.getvalue()

    def export_model(self) -> io.BytesIO:
        return io.BytesIO(b"compiled")


def blob(data: bytes) -> None:
    """The cache of compiled models with anything in the place of a blob: what was compiled, from there or anew."""
    folder = FOLDER / "blobs"
    folder.mkdir(mode=0o700, exist_ok=True)
    os.environ[CACHE] = str(folder)
    compiler, compiles = _Compiler(), []

    def compile_model() -> _Compiler:
        compiles.append(1)
        return compiler

    get = partial(compiled, compiler, [b"model"], {}, compile_model)
    get()
    (path,) = folder.iterdir()
    before = path.read_bytes()
    changed = bytearray(before)
    for start in range(1, len(data) - 2, 3):
        changed[int.from_bytes(data[start : start + 2], "big") % len(changed)] ^= data[start + 2]
    placed(path, data if data and data[0] % 2 else b"\6" + bytes(changed))
    same = (
        path.is_file()
        and not path.is_symlink()
        and path.stat().st_size == len(before)
        and (path.read_bytes() == before)
    )
    compiles.clear()
    assert get() in (compiler, b"compiled")
    assert bool(compiles) != same
    assert path.is_file() and not path.is_symlink()


def names(data: bytes) -> None:
    """What `detect` writes for pictures of any names: inside its folder, and one picture's never over another's."""
    folder = FOLDER / "out"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    parts = [re.sub(rb"[\0/]", b"_", part)[:40] for part in data.split(b"/")]
    paths = [Path(str(index)) / (os.fsdecode(part) or "a") for index, part in enumerate(parts)]
    paths = [path for path in paths if path.name and path.name not in (".", "..")]
    chosen = names_of(paths)
    assert len(set(chosen)) == len(paths)
    frame = np.zeros((2, 2, 3), np.uint8)
    none = Faces(np.zeros(0), np.zeros((0, 4)), np.zeros((0, 5, 2)))
    table = FaceTable(5, ["image"])
    for path, name in zip(paths, chosen, strict=True):
        write_blurred(folder / f"{name}.png", frame, none)
        assert "\n" not in sentence(path, 2, 2, none) and json_line({"image": str(path)})
        table.add([printable(path)], none)
    table.write(folder / "table.csv")
    left = {path.name for path in folder.iterdir()}
    assert left == {f"{name}.png" for name in chosen} | {"table.csv"}


def bundle_targets(folder: Path, manifest: dict[str, Any]) -> dict[str, Callable[[bytes], None]]:
    """Targets that need a bundle in `folder`, whose manifest is `manifest`."""

    def device(data: bytes) -> None:
        """`device.json`, of any kind and with any content: as if it were not there, or a pick."""
        (folder / MANIFEST).write_bytes(serialise(manifest))
        placed(folder / DEVICE, b"\6" + as_json(PICK, data) if data and data[0] % 4 else data)
        read_pick(Bundle.load(folder))
        placed(folder / DEVICE, b"\6")
        (folder / DEVICE).unlink()

    def entries(data: bytes) -> None:
        """`verify` with anything in the place of an entry of the bundle."""
        (folder / MANIFEST).write_bytes(serialise(manifest))
        path = folder / (SIGNATURE, "extra", os.fsdecode(b"\xff\x1b[31m"))[data[-1] % 3 if data else 0]
        placed(path, data)
        try:
            Bundle.load(folder).verify()
        finally:
            placed(path, b"\6")
            path.unlink()

    def shown(data: bytes) -> None:
        """`inspect`: text without control characters, whatever the manifest says."""
        changed = edited(manifest, data)
        try:
            (folder / MANIFEST).write_bytes(serialise(changed if isinstance(changed, dict) else {}))
        except (ValueError, UnicodeError):
            return
        with contextlib.redirect_stdout(io.StringIO()) as said:
            inspect(argparse.Namespace(bundle=folder, sbom=None, model_card=None, json=None))
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", said.getvalue())

    return {"device": device, "entries": entries, "inspect": shown}


PICK = {
    "format_version": 1,
    "processor": {"architecture": "x86_64", "model": "x", "part": ""},
    "backend": "onnxruntime",
    "precision": "fp32",
}
ARRAYS = packed({"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.zeros(0, np.uint8)})
EDITS = [*(bytes([kind]) for kind in range(6)), b"\1\1", b"\6abc", b"\2\0\0\0\4\2\5", bytes(range(0, 60, 2))]
FILE_TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "any-file": (any_file, EDITS),
    "json": (any_json, [*EDITS, b'{"a": [1, "\\"[", null]}', b"[" * 101, '["é"]'.encode("utf-16")]),
    "text": (any_text, [*EDITS, b"rtsp://a:b@c/d?e", b"\xff\x1b[31m\n", "\u202e\u2028é".encode()]),
    "arrays": (arrays, EDITS),
    "release": (release, [*EDITS, b"7,2027-12-31"]),
    "stage": (stage, EDITS),
    "row": (row, EDITS),
    "blob": (blob, [*EDITS, b"\0\0\1\1", b"\0\0\40\1"]),
    "names": (names, [*EDITS, b"a.png/a.png/a-2.png", b"\xff\x1b[31m.jpg/\n", "é".encode() * 20]),
}
