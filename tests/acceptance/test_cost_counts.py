"""Counts of the demo under the emulator: the same each time, nearly all of layers. Needs `make arm64-userspace`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from retinaface_edge.benchmarks.cost.cores import CORES
from retinaface_edge.benchmarks.cost.cycles import find_llvm
from retinaface_edge.benchmarks.cost.emulator.user_space import UserSpace, open_user_space
from retinaface_edge.benchmarks.cost.operators import read_network
from retinaface_edge.benchmarks.cost.result import ArtifactCost, Part
from retinaface_edge.benchmarks.cost.run import Job, count_model
from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.runtime import Bundle

FOLDER = Path(os.environ.get("RETINAFACE_EDGE_ARM64", ROOT / "build" / "arm64" / "root"))


@pytest.fixture(scope="module")
def space() -> UserSpace:
    try:
        find_llvm()
        return open_user_space(FOLDER)
    except MeasurementError as error:
        pytest.skip(str(error))


def count(space: UserSpace, bundle: Bundle, core: str, seed: int) -> ArtifactCost:
    model = bundle.read(bundle.artifact("tflite", "int8").files[0])
    image = np.random.default_rng(seed).integers(0, 256, bundle.spec.input_shape, dtype=np.uint8)
    return count_model(space, Job("tflite int8", Part.DETECTOR, core, model), image)


@pytest.mark.parametrize("core", CORES)
def test_counts_repeat_and_belong_to_layers(space: UserSpace, bundle: Bundle, core: str) -> None:
    first, second = (count(space, bundle, core, seed) for seed in (0, 1))
    # Another picture, the same work: kernels do not branch on values, and memory lies the same.
    assert first == second
    assert first.attributed >= 0.95
    network = read_network(bundle.read(bundle.artifact("tflite", "int8").files[0]))
    convolutions = {one.name for one in network.operators if one.macs}
    assert convolutions <= {row.name for row in first.operators}
    assert 0.9 * first.macs / 32 < first.total.cycles < first.macs
