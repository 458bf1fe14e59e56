"""The runtime's bars, measured: what surrounds the network against the network, C against NumPy, loading, memory.

    python tests/acceptance/bars/runtime.py BUNDLE PICTURE [--frames 10000] [--project .]

One thread, medians of interleaved rounds; every figure but the last ones is a ratio of two things measured in turn, so
that a busy machine slows both. Frames come from several places in memory, as a camera's do: none is in a cache because
the frame before was the same. C is compiled for this machine (`-march=native`), as NumPy picks this machine's
instructions when it starts; the bar is on that, and code for any machine of the family is timed below it. Times of
imports and of loading come from fresh processes, imports with bytecode, which pip leaves.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.benchmarks.latency.mesh_cost import WALL
from retinaface_edge.benchmarks.latency.runners import Clock, TimedNetwork
from retinaface_edge.runtime import Bundle, Detector
from retinaface_edge.runtime.backends import Network, load
from retinaface_edge.runtime.c.generate import c_files
from retinaface_edge.runtime.io.images import read_image
from retinaface_edge.runtime.ops.postprocess import RawOutput
from retinaface_edge.runtime.spec import Spec

SIZES = ((640, 480), (1280, 720), (1920, 1080), (1024, 683))
SURROUND_BARS = {(640, 480): 0.05, (1280, 720): 0.25}
ROUNDS, FRESH = 200, 9
FRAMES = 8
BUILDS = {"-march=native": 0.3, "any machine": None}
"""How C is compiled, and the bar of its time against NumPy's."""
Frame = NDArray[np.uint8]

_SHIM = """
#include "retinaface_edge.h"
int32_t init(rfe_letterbox *box, int32_t w, int32_t h) { return rfe_letterbox_init(box, w, h); }
int32_t rows_bytes(int32_t width) { return (int32_t)rfe_rows_bytes(width); }
size_t box_bytes(void) { return sizeof(rfe_letterbox); }
size_t candidate_bytes(void) { return sizeof(rfe_candidate); }
const uint8_t *pre(const rfe_letterbox *box, const uint8_t *pixels, uint8_t *rows, uint8_t *input) {
    const rfe_frame frame = {pixels, (ptrdiff_t)box->frame_width * 3, 3, RFE_BGR};
    return rfe_network_input(box, &frame, rows, input);
}
int32_t post(const rfe_letterbox *box, const void **data, const int32_t *types, const int32_t *zero_points,
             const double *scales, rfe_candidate *candidates, rfe_face *faces) {
    rfe_output outputs[RFE_OUTPUTS];
    for (int i = 0; i < RFE_OUTPUTS; i++) {
        outputs[i].data = data[i];
        outputs[i].type = (rfe_type)types[i];
        outputs[i].zero_point = zero_points[i];
        outputs[i].scale = scales[i];
    }
    return rfe_postprocess(outputs, box, 0.5, 0.4, candidates, RFE_ANCHORS, faces, 1000);
}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every bar; 0 when all are met, 1 when one is not."""
    parser = argparse.ArgumentParser(description="Measure the runtime's bars.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("picture", type=Path, help="a photograph with one to ten faces")
    parser.add_argument(
        "--frames", type=int, default=10000, help="how many frames the memory bar takes; 0 leaves it out"
    )
    parser.add_argument("--project", type=Path, help="the checkout, to build and weigh the wheel")
    options = parser.parse_args(arguments)
    bundle, picture = Bundle.load(options.bundle), read_image(options.picture)
    met = [surroundings(bundle, picture, size) for size in SIZES]
    met += [import_time(), *(load_time(bundle, backend, bar) for backend, bar in (("tflite", 0.5), ("openvino", 2.0)))]
    if options.frames:
        met += [memory(bundle, backend, picture, options.frames) for backend in ("openvino", "tflite")]
    if options.project:
        met.append(wheel(options.project))
    return 0 if all(met) else 1


def surroundings(bundle: Bundle, picture: Frame, size: tuple[int, int]) -> bool:
    """What a call of `detect` adds to OpenVINO INT8, and C against NumPy, for frames of that width and height."""
    spec, artifact = bundle.spec, bundle.artifact("openvino", "int8")
    clock = Clock()
    network = TimedNetwork(load("openvino", spec, [bundle.read(file) for file in artifact.files], 1), clock)
    detector = Detector(spec, network)
    frames = [_stretched(picture, *size) for _ in range(FRAMES)]
    pre, inference, post, faces = [], [], [], 0
    for index in range(ROUNDS):
        begin = time.perf_counter()
        faces = len(detector.detect(frames[index % FRAMES]))
        end = time.perf_counter()
        pre.append(clock.begin[WALL] - begin)
        inference.append(clock.end[WALL] - clock.begin[WALL])
        post.append(end - clock.end[WALL])
    before, network_alone, after = (statistics.median(seconds) for seconds in (pre, inference, post))
    name = f"{size[0]}x{size[1]}"
    detail = (
        f"pre {before * 1e6:.0f} us, post {after * 1e6:.0f} us, inference {network_alone * 1e3:.2f} ms, {faces} faces"
    )
    ratio = (before + after) / network_alone
    met = _report(f"pre + post / OpenVINO INT8, {name}", ratio, SURROUND_BARS.get(size), detail)
    if not shutil.which("gcc"):
        return met
    for build, bar in BUILDS.items():
        twin = _Twin(spec, size, [build] if build.startswith("-") else [])
        ours, c = [], []
        for index in range(ROUNDS):
            frame = frames[index % FRAMES]
            begin = time.perf_counter()
            found = detector.detect(frame)
            ours.append(time.perf_counter() - begin - (clock.end[WALL] - clock.begin[WALL]))
            c.append(twin.seconds(network, frame, len(found)))
        numpy, twins = statistics.median(ours), statistics.median(c)
        detail = f"C {twins * 1e6:.0f} us (gcc -O3, {build}), NumPy {numpy * 1e6:.0f} us"
        met &= _report(f"C / NumPy, pre + post, {name}", twins / numpy, bar, detail)
    return met


class _Twin:
    """The C header, compiled for one spec and size of frames; called through ctypes, whose cost counts as C's."""

    def __init__(self, spec: Spec, size: tuple[int, int], flags: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        for name, content in c_files(spec).items():
            (folder / name).write_bytes(content)
        (folder / "shim.c").write_text(_SHIM)
        command = ["gcc", "-std=c99", "-O3", *flags, "-shared", "-fPIC", f"-I{folder}", str(folder / "shim.c"), "-lm"]
        subprocess.run([*command, "-o", str(folder / "shim.so")], check=True)
        self._library = ctypes.CDLL(str(folder / "shim.so"))
        self._library.pre.restype = ctypes.c_void_p
        self._rows = np.empty(self._library.rows_bytes(size[0]), np.uint8)
        self._input = np.empty(spec.input_shape, np.uint8)
        self._box = np.empty(self._library.box_bytes(), np.uint8)
        self._candidates = np.empty(self._library.candidate_bytes() * len(spec.anchors), np.uint8)
        self._faces = np.empty((1000, 15))
        self._library.init(_pointer(self._box), *size)

    def seconds(self, network: Network, frame: Frame, faces: int) -> float:
        """Pre, a run of the network, post; the time of pre and post. Checks that there are as many faces as NumPy's."""
        arguments = [_pointer(self._box), _pointer(frame), _pointer(self._rows), _pointer(self._input)]
        begin = time.perf_counter()
        image = self._library.pre(*arguments)
        pre = time.perf_counter() - begin
        outputs = network.run(self._input if image == self._input.ctypes.data else frame[np.newaxis])
        arguments = [_pointer(self._box), *self._described(network, outputs), _pointer(self._candidates)]
        arguments.append(_pointer(self._faces))
        begin = time.perf_counter()
        count = self._library.post(*arguments)
        post = time.perf_counter() - begin
        assert count == faces
        return pre + post

    def _described(self, network: Network, outputs: Sequence[RawOutput]) -> list[ctypes.c_void_p]:
        self._kept: list[NDArray[Any]] = [
            np.array([output.ctypes.data for output in outputs], np.uintp),
            np.array([{"f": 0, "i": 1, "u": 2}[output.dtype.kind] for output in outputs], np.int32),
            np.array([quant.zero_point for quant in network.quant_params], np.int32),
            np.array([quant.scale for quant in network.quant_params], np.float64),
        ]
        return [_pointer(array) for array in self._kept]


def import_time() -> bool:
    """`import retinaface_edge.runtime` against `import numpy`, each in fresh processes, in turn."""
    modules: dict[str, list[float]] = {"numpy": [], "retinaface_edge.runtime": []}
    with tempfile.TemporaryDirectory() as bytecode:
        for _ in range(FRESH + 1):
            for module, seconds in modules.items():
                seconds.append(_fresh(f"import {module}", bytecode=bytecode))
    numpy, ours = (statistics.median(seconds[1:]) for seconds in modules.values())  # the first compiled
    detail = f"{ours * 1e3:.0f} ms against {numpy * 1e3:.0f} ms"
    return _report("import retinaface_edge.runtime / import numpy", ours / numpy, 1.3, detail)


def load_time(bundle: Bundle, backend: str, bar: float) -> bool:
    """From `Detector.load` to the first faces, the backend's own import included."""
    setup = "import numpy; from retinaface_edge import Detector; frame = numpy.zeros((480, 640, 3), numpy.uint8)"
    statement = f"Detector.load({str(bundle.path.resolve())!r}, {backend!r}, 'int8').detect(frame)"
    seconds = statistics.median(_fresh(statement, setup) for _ in range(FRESH))
    return _report(f"load {backend} INT8 to the first result, s", seconds, bar)


def memory(bundle: Bundle, backend: str, picture: Frame, frames: int) -> bool:
    """Resident memory that `frames` frames of three sizes add after the first hundred."""
    pictures = [_stretched(picture, *size) for size in SIZES[:3]]
    with Detector.load(bundle, backend, "int8") as detector:
        for index in range(100):
            detector.detect(pictures[index % 3])
        before = _resident()
        for index in range(frames):
            detector.detect(pictures[index % 3])
        added = _resident() - before
    return _report(f"memory that {frames} frames add, {backend} INT8, MB", added / 1e6, 1.0)


def wheel(project: Path) -> bool:
    """Size of the wheel, and that it is pure Python."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, str(project)]
        subprocess.run(command, check=True)
        (path,) = Path(folder).glob("*.whl")
        return _report("wheel, kB", path.stat().st_size / 1e3, 300, path.name) and path.name.endswith(
            "py3-none-any.whl"
        )


def _report(name: str, value: float, bar: float | None, detail: str = "") -> bool:
    met = bar is None or value <= bar
    verdict = "" if bar is None else f"bar {bar:g}: {'met' if met else 'NOT MET'}"
    print(f"{name:48} {value:8.3f}  {verdict:18} {detail}".rstrip(), flush=True)
    return met


def _fresh(statement: str, setup: str = "pass", bytecode: str | None = None) -> float:
    code = f"{setup}\nimport time\nbegin = time.perf_counter()\n{statement}\nprint(time.perf_counter() - begin)"
    environment = dict(os.environ)
    if bytecode:
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = bytecode
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    return float(result.stdout.split()[-1])


def _resident() -> int:
    """Bytes of this process in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _stretched(picture: Frame, width: int, height: int) -> Frame:
    """The picture at another size, nearest pixels: content for timing, at any size."""
    rows = np.arange(height) * picture.shape[0] // height
    columns = np.arange(width) * picture.shape[1] // width
    return np.ascontiguousarray(picture[rows][:, columns])


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


if __name__ == "__main__":
    sys.exit(main())
