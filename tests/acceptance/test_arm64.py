"""The comparison of `make test-arm64` notices what it is there to notice; the run itself is that target."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "arm64"))

import run
import userland


@pytest.fixture
def x86() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    figures: dict[str, np.ndarray] = {"machine": np.array("x86_64"), "input/a": random.integers(0, 256, 50)}
    for kernels in ("xnnpack", "reference"):
        figures[f"int8/{kernels}/delegates"] = np.array(3 if kernels == "xnnpack" else 0)
        figures[f"int8/{kernels}/a/box_8"] = random.integers(-128, 128, 500).astype(np.int8)
    for precision in ("fp32", "int8"):
        figures[f"{precision}/faces/a"] = random.uniform(0, 100, (2, 15))
    return figures


def compared(x86: dict[str, np.ndarray], **changed: object) -> str:
    arm = {**x86, "machine": np.array("aarch64")}
    arm.update({key.replace("__", "/"): value for key, value in changed.items()})  # type: ignore[arg-type]
    return "; ".join(run.compare(x86, arm))


def test_equal_figures_agree(x86: dict[str, np.ndarray]) -> None:
    assert compared(x86) == ""


def test_one_other_bit_is_found(x86: dict[str, np.ndarray]) -> None:
    for key in ("input__a", "int8__xnnpack__a__box_8", "int8__reference__a__box_8", "int8__faces__a"):
        value = x86[key.replace("__", "/")].copy()
        value.flat[3] = value.flat[3] - 1 if value.flat[3] > 0 else value.flat[3] + 1
        assert f"{key.replace('__', '/')} differs" in compared(x86, **{key: value})


def test_corners_that_moved_or_faces_that_went_are_found(x86: dict[str, np.ndarray]) -> None:
    faces = x86["fp32/faces/a"]
    assert compared(x86, fp32__faces__a=faces + 0.05) == ""
    assert "corners 0.2 px" in compared(x86, fp32__faces__a=faces + 0.2)
    assert "1 faces, x86 has 2" in compared(x86, fp32__faces__a=faces[:1])


def test_an_xnnpack_that_did_not_engage_is_found(x86: dict[str, np.ndarray]) -> None:
    assert "did not engage: 0 delegates" in compared(x86, int8__xnnpack__delegates=np.array(0))
    assert "did not engage: 2 delegates" in compared(x86, int8__xnnpack__delegates=np.array(2))
    assert "2 delegates with the reference" in compared(x86, int8__reference__delegates=np.array(2))


def test_another_machine_is_found(x86: dict[str, np.ndarray]) -> None:
    assert "ran on x86_64" in compared(x86, machine=np.array("x86_64"))


def test_without_root_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(userland.CannotRunError, match="root"):
        userland.make(tmp_path / "arm64", tmp_path)
