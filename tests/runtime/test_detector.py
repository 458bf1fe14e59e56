"""The detector: threads, many frames, closing, and what it says of bad frames."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait, scenes
from retinaface_edge.runtime import (
    BackendError,
    Bundle,
    Detector,
    Faces,
    ImageError,
    Spec,
    ThresholdError,
    backends,
)
from retinaface_edge.runtime.detector import Times
from retinaface_edge.runtime.ops.postprocess import QuantParams

BACKENDS = ("openvino", "tflite", "onnxruntime")

# Runs in a process of its own: counts the threads that have worked during inference, by the kernel's own account.
TRIES = 6
BUSY_THREADS = """
import json, sys
import numpy as np
from retinaface_edge.benchmarks.linux import thread_seconds
from retinaface_edge.runtime import Detector

bundle, backend, precision, threads = sys.argv[1:]
frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
with Detector.load(bundle, backend, precision, threads=int(threads)) as detector:
    detector.detect(frame)
    before = thread_seconds()
    while sum(thread_seconds().values()) - sum(before.values()) < 1.5:  # seconds of work, however long that takes
        for _ in range(10):
            detector.detect(frame)
    after = thread_seconds()
print(json.dumps(sorted((after[name] - before.get(name, 0) for name in after), reverse=True)))
"""


def same(a: Faces, b: Faces) -> bool:
    return np.array_equal(a.boxes, b.boxes) and np.array_equal(a.landmarks, b.landmarks)


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    pictures = [portrait(), *scenes(3, seed=2)]
    return [*pictures, pictures[0][:300, 100:400], pictures[1][::2, ::2], pictures[2][:, :, 1], pictures[3][:1, :1]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted by Linux's /proc")
def test_as_many_threads_work_as_were_asked_for(bundle: Bundle, backend: str, precision: str, threads: int) -> None:
    if threads > len(os.sched_getaffinity(0)):
        pytest.skip("fewer cores than threads")
    command = [sys.executable, "-c", BUSY_THREADS, str(bundle.path), backend, precision, str(threads)]
    # Never more than were asked for. All of them may need a few tries: on a machine whose cores are all taken by
    # others, a thread pool may find its work done by one thread before the second was scheduled.
    for _ in range(TRIES):
        seconds = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        busy, working = (sum(spent > share * sum(seconds) for spent in seconds) for share in (0.05, 0.01))
        assert busy <= threads, seconds
        if working >= threads:
            return
    pytest.fail(f"{TRIES} times fewer than {threads} threads worked: {seconds}")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_many_frames_give_what_single_ones_give(
    bundle: Bundle, backend: str, precision: str, frames: list[np.ndarray]
) -> None:
    times = Times()
    with Detector.load(bundle, backend, precision) as detector:
        one_by_one = [detector.detect(frame) for frame in frames]
        assert sum(len(faces) for faces in one_by_one) > 5
        for given in (frames, iter(frames)):
            many = list(detector.detect_many(given, times=times))
            assert len(many) == len(frames)
            assert all(map(same, many, one_by_one))
        assert list(detector.detect_many([])) == []
        assert [len(f) for f in detector.detect_many(frames[:1])] == [len(one_by_one[0])]
    assert times.frames == 2 * len(frames)
    assert min(times.pre, times.inference, times.post) > 0


def test_threads_may_share_a_detector(bundle: Bundle, frames: list[np.ndarray]) -> None:
    with Detector.load(bundle, "openvino", "int8") as detector:
        expected = [detector.detect(frame) for frame in frames]

        def work(start: int) -> bool:
            order = [(start + step) % len(frames) for step in range(2 * len(frames))]
            single = all(same(detector.detect(frames[i]), expected[i]) for i in order)
            many = detector.detect_many(frames[i] for i in order)
            return single and all(same(faces, expected[i]) for faces, i in zip(many, order, strict=True))

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(8)))


class SlowNetwork:
    """Outputs without a face; tells when it runs, and waits to be let go."""

    quant_params = (QuantParams(),) * 9

    def __init__(self, spec: Spec) -> None:
        self.outputs = [np.full(output.shape, -9, np.float32) for output in spec.outputs]
        self.running, self.go_on = threading.Semaphore(0), threading.Semaphore(0)

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        self.running.release()
        assert self.go_on.acquire(timeout=30)
        return self.outputs


def test_the_next_frame_is_prepared_and_queued_while_the_network_runs() -> None:
    spec = Spec(64, 64)
    network = SlowNetwork(spec)
    taken: list[int] = []

    def frames() -> Iterator[np.ndarray]:
        for index in range(3):
            if index == 1:
                assert network.running.acquire(timeout=30)  # frame 0 is in the network, and frame 1 is asked for
            taken.append(index)
            if index == 1:
                network.go_on.release(3)
            yield np.zeros((9, 9, 3), np.uint8)

    results = Detector(spec, network).detect_many(frames())
    assert taken == []  # nothing is read before it is wanted
    assert len(next(results)) == 0
    assert taken == [0, 1]
    # With the first result in hand, and nobody asking for another, the network has already been given frame 1.
    assert network.running.acquire(timeout=30)
    assert len(list(results)) == 2


def test_errors_name_the_frame(bundle: Bundle) -> None:
    good = np.zeros((8, 8, 3), np.uint8)
    with Detector.load(bundle, "openvino", "int8") as detector:
        with pytest.raises(ImageError, match=r"frame 2: a frame must be uint8 .* not float64"):
            list(detector.detect_many([good, good, good.astype(float), good]))
        with pytest.raises(ImageError, match="a frame must be a NumPy array, not str"):
            detector.detect("picture.jpg")  # type: ignore[arg-type]
        with pytest.raises(ThresholdError, match=r"between 0 and 1, not 1\.5"):
            detector.detect_many([good], score_threshold=1.5)

    class Broken:
        quant_params = (QuantParams(),) * 9

        def run(self, image: np.ndarray) -> list[np.ndarray]:
            raise RuntimeError("device lost")

    with pytest.raises(BackendError, match=r"frame 0: the network failed .device lost."):
        list(Detector(Spec(64, 64), Broken()).detect_many([good]))


def test_a_closed_detector_says_so(bundle: Bundle) -> None:
    frame = np.zeros((8, 8, 3), np.uint8)
    with Detector.load(bundle, "tflite", "int8") as detector:
        assert len(detector.detect(frame)) == 0
    with pytest.raises(BackendError, match="closed; load it again"):
        detector.detect(frame)
    detector.close()
    for call in (lambda: detector.detect(frame), lambda: detector.detect_many([frame])):
        with pytest.raises(BackendError, match="closed; load it again"):
            call()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_of_another_size_is_not_taken_for_the_contracts(bundle: Bundle, backend: str) -> None:
    """Whoever exchanges artifacts and writes the digests anew is told so before the first frame."""
    files = [bundle.read(file) for file in bundle.artifact(backend, "fp32").files]
    words = r"output score_8 of the model has shape \(1, 60, 80, 2\), the contract says \(1, 32, 40, 2\)"
    with pytest.raises(BackendError, match=words):
        backends.load(backend, Spec(320, 256), files, 1)


def test_an_unknown_backend_is_told_with_those_that_there_are() -> None:
    with pytest.raises(BackendError, match="no backend 'abacus'; choose one of: openvino, tflite, onnxruntime"):
        backends.load("abacus", Spec(), [], 1)


def test_leaving_many_frames_early_leaves_no_thread(bundle: Bundle) -> None:
    before = threading.active_count()
    with Detector.load(bundle, "openvino", "int8") as detector:
        results = detector.detect_many(np.zeros((8, 8, 3), np.uint8) for _ in range(1000))
        next(results)
        results.close()  # type: ignore[attr-defined]
        assert threading.active_count() == before


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused(bundle: Bundle, threads: int) -> None:
    with pytest.raises(BackendError, match="threads must be at least 1"):
        Detector.load(bundle, "tflite", "int8", threads=threads)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (8000, 8000)])
def test_any_size_of_frame_is_detected_in(bundle: Bundle, size: tuple[int, int]) -> None:
    with Detector.load(bundle, "openvino", "int8") as detector:
        frame = np.zeros((size[1], size[0]), np.uint8)
        frame.flags.writeable = False
        assert len(detector.detect(frame)) == 0


def test_grey_and_rgb_frames_find_the_same_face(bundle: Bundle) -> None:
    frame = portrait()
    with Detector.load(bundle, "openvino", "int8") as detector:
        expected = detector.detect(frame)
        assert same(detector.detect(np.ascontiguousarray(frame[:, :, ::-1]), rgb=True), expected)
        grey = detector.detect(frame[:, :, 1])
        assert len(grey) == len(expected) == 1
        assert np.abs(grey.boxes - expected.boxes).max() < 20


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_frame_of_the_inputs_size_is_read_where_it_lies_and_stays_as_it_is(
    bundle: Bundle, backend: str, frames: list[np.ndarray]
) -> None:
    own = frames[1].copy()
    assert own.shape == (bundle.spec.height, bundle.spec.width, 3)
    before, read_only, wide = own.copy(), own.copy(), np.zeros((*own.shape[:2], 4), np.uint8)
    read_only.flags.writeable = False
    wide[:, :, :3] = own
    with Detector.load(bundle, backend, "fp32") as detector:
        faces = detector.detect(own)
        assert np.array_equal(own, before)
        own[:] = 0  # what was lent is no longer read
        assert len(faces)
        for frame in (read_only, wide[:, :, :3], before[:, ::-1][:, ::-1]):
            assert same(detector.detect(frame), faces)
        assert len(detector.detect(own)) == 0


def test_a_compiled_model_is_kept_and_computes_the_same(
    bundle: Bundle, frames: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Detector.load(bundle, "openvino", "int8") as detector:
        expected = detector.detect(frames[1])
    monkeypatch.setenv("RETINAFACE_EDGE_CACHE", str(tmp_path))
    kept = []
    for _ in range(2):
        with Detector.load(bundle, "openvino", "int8") as detector:
            assert same(detector.detect(frames[1]), expected)
        kept.append({file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()})
    assert kept[0] == kept[1] != {}, "the second start reads what the first one wrote"


def test_a_call_in_the_middle_of_a_frame_is_refused_and_the_frame_is_finished(
    bundle: Bundle, frames: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler calls so: in the thread that it interrupts, which would wait for itself for ever.

    It is called here and not by a signal: on processors with wide registers, pytest's stack for signals is too small
    for what the kernel puts there.
    """
    with Detector.load(bundle, "tflite", "int8") as detector:
        expected = detector.detect(frames[1])
        network = detector._network
        assert network is not None
        run, said = network.run, []

        def interrupted(image: np.ndarray) -> object:
            with pytest.raises(BackendError, match="is busy with a frame") as refused:
                detector.detect(frames[0])
            said.append(refused.value)
            return run(image)

        with monkeypatch.context() as patched:
            patched.setattr(network, "run", interrupted)
            assert same(detector.detect(frames[1]), expected)
            assert same(next(iter(detector.detect_many(frames[1:2]))), expected)
        assert len(said) == 2
        assert same(detector.detect(frames[1]), expected)
