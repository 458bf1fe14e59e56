"""Under load: four threads on one detector, short here; `tests/robustness/trust/soak.py` is the long one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from robustness.trust.soak import MOST_GROWTH, Held, Soak, load, soak

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.cli.main import main
from retinaface_edge.runtime import Bundle, Detector
from retinaface_edge.runtime.backends import BACKENDS


@pytest.fixture(scope="module")
def small_bundle(stages: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("small")
    command = ["build", "--images", "8", "--size", "160x128", "--recipe", "fast", "--cache", str(stages)]
    assert main([*command, "--output", str(folder / "bundle")]) == 0
    return Bundle.load(folder / "bundle")


@pytest.mark.parametrize("backend", BACKENDS)
def test_four_threads_get_the_same_faces_again_and_no_memory_is_lost(small_bundle: Bundle, backend: str) -> None:
    result = soak(small_bundle.path, backend, "int8", 800)
    assert (result.count, result.changed, result.hung) == (800, 0, 0)
    assert result.faces >= 3
    assert result.grew.memory <= MOST_GROWTH


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_loaded_and_closed_leaves_nothing(small_bundle: Bundle, backend: str) -> None:
    result = load(small_bundle.path, backend, "int8", 60)
    assert (result.count, result.changed) == (60, 0)
    assert result.grew.descriptors <= 0
    assert result.grew.threads <= 0


def test_a_leak_of_any_kind_fails_a_soak() -> None:
    good = Soak("loads", "tflite", "int8", 10, 1.0, 3, 0, 0, Held(0, 0, 0))
    assert good.good
    for grew in (Held(MOST_GROWTH + 1, 0, 0), Held(0, 1, 0), Held(0, 0, 1)):
        assert not replace(good, grew=grew).good


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_backend_that_raised_serves_the_next_call(small_bundle: Bundle, backend: str, precision: str) -> None:
    detector = Detector.load(small_bundle, backend, precision)
    before = detector.detect(portrait())
    assert detector._network is not None
    for bad in (np.zeros((1, 8, 8, 3), np.uint8), np.zeros((3,), np.uint8)):
        with pytest.raises(Exception):  # noqa: B017 - whatever the backend's library raises
            detector._network.run(bad)
    after = detector.detect(portrait())
    assert np.array_equal(before.boxes, after.boxes)
    assert np.array_equal(before.scores, after.scores)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_failing_call_lets_go_of_the_detector(
    small_bundle: Bundle, backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    detector = Detector.load(small_bundle, backend, "int8")
    expected = detector.detect(portrait())
    network = detector._network
    assert network is not None
    run, calls = network.run, iter([True, False, False])

    def sometimes(image: np.ndarray) -> object:
        if next(calls):
            raise RuntimeError("out of memory")
        return run(image)

    monkeypatch.setattr(network, "run", sometimes, raising=False)
    with pytest.raises(RuntimeError, match="out of memory"):
        detector.detect(portrait())
    assert np.array_equal(detector.detect(portrait()).boxes, expected.boxes)
    (faces,) = detector.detect_many([portrait()])
    assert np.array_equal(faces.boxes, expected.boxes)
