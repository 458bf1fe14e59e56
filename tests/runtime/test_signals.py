"""A signal after detectors were closed: it is heeded, whatever a backend did to the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from retinaface_edge.runtime import Bundle

SCRIPT = """
import signal, sys
from retinaface_edge.runtime import Detector

opened = [Detector.load(sys.argv[1], sys.argv[2], "int8") for _ in range(3)]
for detector in opened:  # the first one first: a plugin that restores what it found would leave what is gone
    detector.close()
del detector, opened
caught = []
signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
signal.raise_signal(signal.SIGTERM)
print(caught == [signal.SIGTERM])
"""


@pytest.mark.parametrize("backend", ["openvino", "tflite", "onnxruntime"])
def test_a_signal_after_detectors_were_closed_is_handled(backend: str, bundle: Bundle) -> None:
    """OpenVINO's CPU plugin changes the stack that signals are handled on; freed, the next signal is a crash."""
    pytest.importorskip({"tflite": "ai_edge_litert"}.get(backend, backend))
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(bundle.path), backend], capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stdout) == (0, "True\n"), result.stderr
