"""The backbones side by side: equal kernels, speed of the network, size, and what a build of 100 photographs takes.

    PYTHONPATH=tests python -m acceptance.bars.backbones PHOTOGRAPHS [--backbone resnet50] [--size 640x480]

Weights are untrained, except that batch norm has the statistics of eight of the photographs, so that activations have
the ranges of a trained network's: times and sizes do not depend on weights; accuracy is not measured. Recipe `fast`.
A build runs in a process of its own, and all artifacts are timed in turn on one core (`bench --quick`). Times are the
network's: an untrained one finds faces everywhere. That FP32 is lowered exactly is a test's (`tests/export`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from acceptance.bars.kernel_drift import kernel_outputs
from retinaface_edge.benchmarks.latency.result import BenchResult, RunnerResult
from retinaface_edge.benchmarks.results import read_result
from retinaface_edge.calibration.dataset.image_set import image_folder
from retinaface_edge.export.checkpoints.interpretation import Interpretation
from retinaface_edge.export.models.retinaface import RetinaFace
from retinaface_edge.runtime import Bundle, Spec
from retinaface_edge.training.from_scratch import checkpoint_bytes, untrained

BACKBONES = ("mobilenet_v1_0.25", "slim", "rfb", "mobilenet_v2", "mobilenet_v1_1.0", "resnet18", "resnet34", "resnet50")
LARGEST = "resnet50"
MOST_INT8, MOST_SECONDS, MOST_GIB = 0.32, 180.0, 4.0
"""The bars of `LARGEST`; equal kernels are one for every backbone."""
STATISTICS, INPUTS = 8, 3
BACKENDS = ("openvino", "tflite")


@dataclass(frozen=True)
class Measured:
    """One backbone: what its build took, whether XNNPACK gives the reference kernels' integers, and its times."""

    backbone: str
    build_seconds: float
    build_gib: float
    equal_kernels: bool
    bench: BenchResult

    def ms(self, backend: str, precision: str) -> float:
        """The network's mean share of a call, in milliseconds."""
        return self._runner(backend, precision).latency.inference_ms

    def int8_to_fp32(self, backend: str) -> float:
        """INT8's median over FP32's."""
        return self.ms(backend, "int8") / self.ms(backend, "fp32")

    def row(self) -> str:
        """A row of the table."""
        int8 = self._runner("openvino", "int8")
        share = "–" if int8.share_of_peak is None else f"{100 * int8.share_of_peak:.0f} %"
        cells = [
            self.backbone,
            *(f"{self.ms(backend, precision):.1f}" for backend in BACKENDS for precision in ("fp32", "int8")),
            *(f"{self.int8_to_fp32(backend):.2f}" for backend in BACKENDS),
            "–" if int8.gmac_per_second is None else f"{int8.gmac_per_second:.0f}",
            share,
            f"{self._runner('tflite', 'int8').size_bytes / 1e6:.1f}",
            f"{self.build_seconds:.0f}",
            f"{self.build_gib:.1f}",
            "equal" if self.equal_kernels else "DIFFERENT",
        ]
        return f"| {' | '.join(cells)} |"

    def missed(self) -> list[str]:
        """The bars that it misses."""
        largest = self.backbone == LARGEST
        bars = {
            "equal kernels": self.equal_kernels,
            f"INT8 at most {MOST_INT8} of FP32": not largest or max(map(self.int8_to_fp32, BACKENDS)) <= MOST_INT8,
            f"build within {MOST_SECONDS:.0f} s": not largest or self.build_seconds <= MOST_SECONDS,
            f"build within {MOST_GIB:.0f} GiB": not largest or self.build_gib <= MOST_GIB,
        }
        return [f"{self.backbone}: {bar}" for bar, met in bars.items() if not met]

    def _runner(self, backend: str, precision: str) -> RunnerResult:
        (found,) = (runner for runner in self.bench.runners if runner.name == f"{backend} {precision}")
        return found


HEADER = """\
| backbone | OpenVINO FP32, ms | INT8 | TFLite FP32, ms | INT8 | OpenVINO INT8/FP32 | TFLite | OpenVINO INT8, GMAC/s | \
share of peak | INT8, MB | build, s | GiB | kernels |
|---|---|---|---|---|---|---|---|---|---|---|---|---|"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--backbone", choices=BACKBONES, action="append")
    parser.add_argument("--size", default="640x480")
    options = parser.parse_args(arguments)
    missed: list[str] = []
    print(HEADER, flush=True)
    for backbone in options.backbone or BACKBONES:
        with tempfile.TemporaryDirectory() as folder:
            measured = measure(backbone, options.photographs.resolve(), options.size, Path(folder))
        print(measured.row(), flush=True)
        missed += measured.missed()
    for bar in missed:
        print(f"MISSED  {bar}")
    return 1 if missed else 0


def measure(backbone: str, photographs: Path, size: str, folder: Path) -> Measured:
    """Build it in `folder` and measure it."""
    width, height = map(int, size.split("x"))
    spec = Spec(width, height)
    inputs = image_folder(photographs, STATISTICS).read(spec, print).inputs
    checkpoint = untrained(backbone, 0)
    learn_statistics(checkpoint.model, checkpoint.interpretation, inputs)
    path, output = folder / "model.pth", folder / "bundle"
    path.write_bytes(checkpoint_bytes(checkpoint.model, checkpoint.interpretation))
    command = [sys.executable, "-m", "retinaface_edge"]
    build = ["build", "--checkpoint", path, "--calibration", photographs, "--recipe", "fast", "--size", size]
    build += ["--no-cache", "--ignore-self-check", "--quiet", "--output", output]
    seconds, gib = _run([*command, *map(str, build)])
    bundle = Bundle.load(output)
    images = image_folder(photographs, INPUTS).read(bundle.spec, print).inputs
    result = folder / "bench.json"
    bench = ["bench", output, photographs, "--quick", "--artifact", "openvino *", "--artifact", "tflite *"]
    _run([*command, *map(str, [*bench, "--quiet", "--json", result])])
    measured = read_result(result, BenchResult)
    return Measured(backbone, seconds, gib, equal_kernels(bundle, images), measured)


def learn_statistics(model: RetinaFace, settings: Interpretation, inputs: Sequence[NDArray[np.uint8]]) -> None:
    """Give every batch norm the mean and variance that it sees on `inputs` (1, h, w, 3), BGR."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (settings.mean, settings.std))
    images = torch.from_numpy(np.concatenate(list(inputs))).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        for image in torch.split(images, 2):
            model.train()((image - mean) / std)
    for norm in norms:
        norm.momentum = 0.1
    model.eval()


def equal_kernels(bundle: Bundle, images: Sequence[NDArray[np.uint8]]) -> bool:
    """Whether XNNPACK and LiteRT's reference kernels give the same integers, all of them."""
    ours, theirs = (kernel_outputs(bundle, images, kernels) for kernels in ("xnnpack", "reference"))
    return all(
        np.array_equal(a, b)
        for first, second in zip(ours, theirs, strict=True)
        for a, b in zip(first, second, strict=True)
    )


def _run(command: Sequence[str]) -> tuple[float, float]:
    """Seconds and peak GiB of a command; what it says is shown when it fails."""
    begin = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        said.seek(0)
        assert os.waitstatus_to_exitcode(status) == 0, said.read().decode(errors="replace")
    return time.monotonic() - begin, usage.ru_maxrss / 2**20


if __name__ == "__main__":
    raise SystemExit(main())
