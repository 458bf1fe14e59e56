"""The last tflite-runtime, with NumPy 1, in an environment of its own: what older devices have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.runtime import Bundle, Detector

UNREACHABLE = ("connection", "timed out", "name resolution", "no matching distribution", "could not find a version")
DETECT = """
import json, sys
import numpy, tflite_runtime
from retinaface_edge.runtime import Detector
bundle, frame = sys.argv[1:]
found = {"numpy": numpy.__version__}
for precision in ("fp32", "int8"):
    with Detector.load(bundle, "tflite", precision) as detector:
        (faces,) = detector.detect_many([numpy.load(frame)])
        found[precision] = [faces.scores.tolist(), faces.boxes.tolist(), faces.landmarks.tolist()]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with our package and its extra `tflite-legacy`."""
    names = [f"python3.{minor}" for minor in (11, 10, 9)]
    here = sys.executable if sys.version_info < (3, 12) else next(filter(None, map(shutil.which, names)), None)
    if here is None:
        pytest.skip("tflite-runtime 2.14 needs Python 3.11 or older, and there is none here")
    folder = tmp_path_factory.mktemp("legacy") / "venv"
    subprocess.run([here, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", f"{ROOT}[tflite-legacy]"]
    result = subprocess.run(pip, capture_output=True, text=True)
    if result.returncode and any(words in result.stderr.lower() for words in UNREACHABLE):
        pytest.skip(f"the package index gives no tflite-runtime: {result.stderr.strip().splitlines()[-1]}")
    assert result.returncode == 0, result.stderr
    return folder / "bin" / "python"


def test_the_old_runtime_finds_the_same_face(python: Path, bundle: Bundle, tmp_path: Path) -> None:
    np.save(tmp_path / "frame.npy", portrait())
    command = [str(python), "-c", DETECT, str(bundle.path), str(tmp_path / "frame.npy")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["numpy"].startswith("1.")
    for precision, corner in (("fp32", 0.1), ("int8", 4.0)):  # INT8 kernels differ by steps from release to release
        with Detector.load(bundle, "tflite", precision) as detector:
            expected = detector.detect(portrait())
        scores, boxes, landmarks = map(np.array, found[precision])
        assert len(scores) == len(expected) == 1
        assert np.abs(boxes - expected.boxes).max() < corner
        assert np.abs(landmarks - expected.landmarks).max() < corner
        assert np.abs(scores - expected.scores).max() < 0.02
