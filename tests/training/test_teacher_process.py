"""A foreign network is loaded where its memory, its time and its crashes are bounded."""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from retinaface_edge.export.lower.tflite_schema import Graph, Operator, Tensor, serialise
from retinaface_edge.training.mesh.teacher import Teacher, TeacherError
from retinaface_edge.training.mesh.teacher_process import BoundedNetwork, Limits, NetworkError

FLOAT = np.dtype(np.float32)
SHAPE = (1, 8, 8, 3)
LIMITS = Limits(1 << 20, 512 << 20)


def padded(border: int) -> bytes:
    """A picture of 8x8 pixels with a border; the file says that the result has 8x8 pixels, too."""
    borders = np.array([[0, 0], [border, border], [border, border], [0, 0]], np.int32)
    tensors = (
        Tensor("image", FLOAT, SHAPE),
        Tensor("borders", borders.dtype, borders.shape, data=borders),
        Tensor("result", FLOAT, SHAPE),
    )
    return serialise(Graph(tensors, [Operator("PAD", (0, 1), (2,))], [0], [2]))


def slow(layers: int) -> bytes:
    """Convolutions of many channels, one after another, with the same weights: 15 GMAC each."""
    weights = np.full((256, 3, 3, 256), 1e-6, np.float32)
    options = {"padding": 0, "strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
    tensors = (
        Tensor("weights", FLOAT, weights.shape, data=weights),
        Tensor("bias", FLOAT, (256,), data=weights[0, 0, 0]),
        *(Tensor(f"value{index}", FLOAT, (1, 160, 160, 256)) for index in range(layers + 1)),
    )
    operators = [Operator("CONV_2D", (2 + index, 0, 1), (3 + index,), options) for index in range(layers)]
    return serialise(Graph(tensors, operators, [2], [2 + layers]))


def test_a_network_answers() -> None:
    network = BoundedNetwork(padded(0), LIMITS)
    assert ([port.shape for port in network.inputs], network.outputs[0].dtype) == ([SHAPE], "float32")
    for seed in range(3):
        picture = np.random.default_rng(seed).random(SHAPE, np.float32)
        (answer,) = network.run(picture[:, :, ::-1])
        assert np.array_equal(answer, picture[:, :, ::-1])
    network.close()


@pytest.mark.skipif(sys.platform != "linux", reason="data in memory is bounded on Linux only")
def test_shapes_that_only_the_kernels_work_out_are_bounded(tmp_path: Path) -> None:
    """Its tensors have 576 values, says the file; its result has 3 GB."""
    (tmp_path / "teacher.tflite").write_bytes(padded(8000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TeacherError, match=r"not a TFLite network that runs here .*; give MediaPipe") as refusal:
        Teacher(tmp_path / "teacher.tflite")
    assert "\n" not in str(refusal.value)
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    assert most - before < 1 << 20  # KiB


def test_an_answer_that_takes_too_long_ends() -> None:
    with pytest.raises(NetworkError, match=rf"ended with signal {signal.SIGXCPU:d}; it may take 512 MB and 1 s"):
        BoundedNetwork(slow(60), Limits(1 << 30, 512 << 20, 1))


def test_a_process_that_crashes_is_an_error_and_not_a_crash() -> None:
    network = BoundedNetwork(padded(0), LIMITS)
    os.kill(network._process.pid, signal.SIGSEGV)
    with pytest.raises(NetworkError, match=f"ended with signal {signal.SIGSEGV:d}"):
        network.run(np.zeros(SHAPE, np.float32))


def test_the_process_ends_with_its_network() -> None:
    network = BoundedNetwork(padded(0), LIMITS)
    process = network._process
    del network
    assert process.returncode == -signal.SIGKILL


def test_modules_of_the_working_directory_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(7)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    BoundedNetwork(padded(0), LIMITS).close()
