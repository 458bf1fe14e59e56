"""Caches: what is read is what we put there under that key, and everything else is made again, without a word lost."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from robustness.trust import cache_flips

from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.benchmarks.inference.result_cache import FILE, ResultCache, Stored
from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.export import stage_cache
from retinaface_edge.runtime import Bundle, Detector
from retinaface_edge.runtime.backends import openvino_cache
from retinaface_edge.runtime.io import sealed
from retinaface_edge.runtime.io.sealed import private_folder, seal, unseal

FLIPS = 1000
KEY = "0" * 64


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of this test alone."""
    monkeypatch.setenv(sealed.STATE_VARIABLE, str(tmp_path / "state"))
    openvino_cache._warn_once.cache_clear()
    return tmp_path / "state"


def flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    changed[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def test_a_value_is_bound_to_its_key_and_to_this_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = seal("key", b"value")
    assert unseal("key", kept) == b"value"
    assert unseal("kex", kept) is None
    assert unseal("key", b"") is unseal("key", kept[:-1]) is unseal("key", b"value") is None
    # The key and the value have a border: what ends the one cannot begin the other.
    assert unseal("ke", kept[:32] + b"y" + kept[32:]) is None
    chance = random.Random(0)
    assert not any(unseal("key", flipped(kept, chance)) for _ in range(FLIPS))
    monkeypatch.setenv(sealed.STATE_VARIABLE, str(tmp_path / "another"))
    assert unseal("key", kept) is None


def test_the_secret_is_private_and_a_strange_one_is_refused(state: Path) -> None:
    seal("key", b"")
    secret = state / "secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert [path.name for path in state.iterdir()] == ["secret"]
    content = secret.read_bytes()
    for damage in (lambda: secret.chmod(0o640), lambda: secret.write_bytes(b"short"), lambda: os.mkfifo(secret)):
        secret.unlink()
        if damage.__code__.co_names[-1] != "mkfifo":
            secret.write_bytes(content)
            secret.chmod(0o600)
        damage()
        sealed._secret.cache_clear()
        with pytest.raises(OSError, match=r"secret"):
            seal("key", b"")
    secret.unlink()
    state.chmod(0o770)
    sealed._secret.cache_clear()
    with pytest.raises(OSError, match="alone to write"):
        private_folder(state)


def stored(folder: Path, key: str = KEY) -> dict[str, bytes]:
    files = {"model.onnx": bytes(range(256)), "about.json": b"{}"}
    stage_cache.write_entry(folder, key, files)
    return files


def test_a_changed_stage_is_made_again_whatever_was_changed(tmp_path: Path) -> None:
    folder = tmp_path / "stages"
    files = stored(folder)
    assert stage_cache.read_entry(folder, KEY) == files
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE((folder / KEY).stat().st_mode) == 0o700
    chance = random.Random(1)
    for _ in range(FLIPS):
        path = chance.choice(sorted((folder / KEY).iterdir()))
        before = path.read_bytes()
        path.write_bytes(flipped(before, chance))
        assert stage_cache.read_entry(folder, KEY) is None
        path.write_bytes(before)
    assert stage_cache.read_entry(folder, KEY) == files


def test_a_stage_under_another_key_or_with_a_digest_of_its_own_is_made_again(tmp_path: Path) -> None:
    """Who can write the folder can give a changed file its right digest, or put one entry in another's place."""
    folder, other = tmp_path / "stages", "1" * 64
    stored(folder)
    shutil.copytree(folder / KEY, folder / other)
    assert stage_cache.read_entry(folder, other) is None
    changed = {name: stage_cache.digest_of(b"evil") for name in ("model.onnx", "about.json")}
    import json

    for listed in (json.dumps(changed).encode(), b"{}", b"[]", b"[" * 100_000, b"null", b""):
        (folder / KEY / "model.onnx").write_bytes(b"evil")
        (folder / KEY / stage_cache.LIST).write_bytes(listed)
        assert stage_cache.read_entry(folder, KEY) is None
    made = stage_cache.Stages(folder).run("a", {}, (), lambda: {"x": b"1"})
    assert made == {"x": b"1"}


@pytest.mark.parametrize("strange", ["fifo", "link", "folder"])
@pytest.mark.parametrize("name", [stage_cache.LIST, "model.onnx", ""])
def test_no_strange_entry_of_a_stage_hangs_and_it_is_replaced(strange: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "stages"
    files = stored(folder)
    path = folder / KEY / name if name else folder / KEY
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if strange == "fifo":
        os.mkfifo(path)
    elif strange == "link":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    assert stage_cache.read_entry(folder, KEY) is None
    stage_cache.write_entry(folder, KEY, files)
    assert stage_cache.read_entry(folder, KEY) == files


def test_builds_side_by_side_store_every_stage_and_none_vanishes(tmp_path: Path) -> None:
    """While one build reads an entry, others store the same one again, and many more."""
    folder, files = tmp_path / "stages", {"x": b"1"}
    stage_cache.write_entry(folder, KEY, files)

    def build(number: int) -> bool:
        key = f"{number:064x}"
        stage_cache.write_entry(folder, KEY, files)
        stage_cache.write_entry(folder, key, files)
        return stage_cache.read_entry(folder, key) == files and stage_cache.read_entry(folder, KEY) == files

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(build, range(1, stage_cache.ENTRIES_KEPT)))


def test_without_a_secret_nothing_is_kept_and_nothing_fails(tmp_path: Path, state: Path) -> None:
    state.write_text("a file where the folder should be")
    stage_cache.write_entry(tmp_path / "stages", KEY, {"x": b"1"})
    assert stage_cache.read_entry(tmp_path / "stages", KEY) is None
    with pytest.raises(MeasurementError, match="give another --cache"):
        ResultCache(tmp_path / "results")


def test_changed_and_swapped_rows_of_results_are_measured_again(tmp_path: Path) -> None:
    values = {f"{index:02}": Stored((640, 480), {"a": np.full(9, index)}) for index in range(8)}
    with ResultCache(tmp_path) as cache:
        cache.put(values)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    chance, wrong = random.Random(2), 0
    database = sqlite3.connect(tmp_path / FILE)
    with ResultCache(tmp_path) as cache:
        for _ in range(FLIPS):
            key = chance.choice(sorted(values))
            (before,) = database.execute("SELECT arrays FROM measured WHERE key = ?", (key,)).fetchone()
            with database:
                database.execute("UPDATE measured SET arrays = ? WHERE key = ?", (flipped(before, chance), key))
            wrong += cache.get(key) is not None or key in cache
            with database:
                database.execute("UPDATE measured SET arrays = ? WHERE key = ?", (before, key))
        assert wrong == 0
        assert cache.get("03") is not None
        rows = dict(database.execute("SELECT key, arrays FROM measured").fetchall())
        with database:
            database.execute("UPDATE measured SET arrays = ? WHERE key = '03'", (rows["04"],))
            database.execute("UPDATE measured SET width = 641 WHERE key = '05'")
            database.execute("UPDATE measured SET arrays = 'text' WHERE key = '06'")
        assert [cache.get(key) is None for key in ("03", "04", "05", "06")] == [True, False, True, True]
        cache.put({"03": values["03"]})
        found = cache.get("03")
        assert found is not None
        assert found.arrays["a"].tolist() == [3] * 9


@pytest.mark.parametrize("strange", [os.mkfifo, lambda path: path.symlink_to("victim"), lambda path: path.mkdir()])
def test_no_strange_database_hangs_or_is_followed(strange: Callable[[Path], None], tmp_path: Path) -> None:
    strange(tmp_path / FILE)
    with pytest.raises(MeasurementError, match="give another --cache"):
        ResultCache(tmp_path)
    assert not (tmp_path / "victim").exists()


@pytest.fixture
def blobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(openvino_cache.CACHE, str(tmp_path / "blobs"))
    return tmp_path / "blobs"


def boxes(bundle: Bundle, precision: str = "int8") -> list[list[float]]:
    with Detector.load(bundle, "openvino", precision) as detector:
        found: list[list[float]] = detector.detect(portrait()).boxes.tolist()
        return found


def test_no_compiled_model_of_others_is_run(bundle: Bundle, blobs: Path) -> None:
    """Changed, swapped, planted, a pipe or a link: it is compiled again, and the faces are the same."""
    expected = boxes(bundle)
    (own,) = blobs.iterdir()
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    boxes(bundle, "fp32")
    (other,) = set(blobs.iterdir()) - {own}
    good = own.read_bytes()
    chance = random.Random(3)
    key = own.stem
    assert unseal(key, good) is not None
    assert not any(unseal(key, flipped(good, chance)) for _ in range(20))
    own.write_bytes(other.read_bytes())
    assert boxes(bundle) == expected
    assert own.read_bytes() != other.read_bytes()
    for damage in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.write_bytes(b"")):
        own.unlink()
        damage(own)
        assert boxes(bundle) == expected
        assert own.is_file() and not own.is_symlink()


def test_a_cache_that_others_may_write_is_not_used_and_this_is_said_once(bundle: Bundle, blobs: Path) -> None:
    blobs.mkdir()
    blobs.chmod(0o777)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert boxes(bundle) == boxes(bundle)
    ours = [str(one.message) for one in said if "compiled models are not kept" in str(one.message)]
    assert len(ours) == 1
    assert "alone to write" in ours[0]
    assert list(blobs.iterdir()) == []


def test_single_bits_of_the_caches_change_nothing_silently(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few of those that `tests/robustness/trust/cache_flips.py` flips by the thousand."""
    monkeypatch.setenv(openvino_cache.CACHE, str(tmp_path / "unused"))
    chance = random.Random(4)
    for found, flips in (
        (cache_flips.blobs(bundle, tmp_path, 4, chance), 4),
        (cache_flips.rows(tmp_path / "results", 60, chance), 60),
    ):
        assert (found.silent, found.noticed + found.harmless) == (0, flips)
        assert found.noticed
