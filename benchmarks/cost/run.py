"""The cost of a bundle: every TFLite artifact of it, one frame each, counted on every core asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.bundle.bundle import Artifact, Bundle
from retinaface_edge.runtime.ops.letterbox import letterbox, letterbox_for

from ..errors import MeasurementError
from ..results import FORMAT_VERSION
from .attribution import Attributed, attribute, boundaries
from .cores import read_core
from .cycles import block_cycles, find_llvm
from .emulator.user_space import UserSpace, open_user_space
from .operators import Network, read_network
from .result import NO_WORK, ArtifactCost, CostResult, OperatorCost, Part, Work

TFLITE = "tflite"
SEED = 0

Progress = Callable[[Iterable["Job"]], Iterable["Job"]]


@dataclass(frozen=True)
class Job:
    """One model to count on one core."""

    artifact: str
    part: Part
    core: str
    model: bytes


def count_bundle(
    bundle: Bundle, frame: NDArray[np.uint8], cores: Sequence[str], user_space: Path, progress: Progress = iter
) -> CostResult:
    """Count the TFLite artifacts of `bundle` on `frame` (uint8 BGR, any size), the dense branch on one face.

    `cores` are names of `cores.CORES`. Raises `MeasurementError` when something that counting needs is missing.
    """
    models = list(_models(bundle))
    if not models:
        raise MeasurementError(f"{bundle.path} has no TFLite artifact, the only kind that is counted")
    space = open_user_space(user_space)
    _, llvm = find_llvm()
    image = np.empty(bundle.spec.input_shape, np.uint8)
    letterbox(bundle.spec, letterbox_for(bundle.spec, frame.shape[1], frame.shape[0]), frame, image)
    jobs = [Job(artifact, part, core, model) for core in cores for artifact, part, model in models]
    return CostResult(
        kind="cost",
        format_version=FORMAT_VERSION,
        bundle_digest=str(bundle.manifest["digest"]),
        input_digest=hashlib.sha256(image.tobytes()).hexdigest(),
        tools={**space.versions, "llvm": llvm},
        models={core: read_core(core).llvm_note for core in cores},
        artifacts=tuple(count_model(space, job, image) for job in progress(jobs)),
    )


def count_model(space: UserSpace, job: Job, image: NDArray[np.uint8]) -> ArtifactCost:
    """Count one model on one core; the detector on `image` (its input), another network on seeded noise."""
    core, network = read_core(job.core), read_network(job.model)
    inputs = [image] if job.part is Part.DETECTOR else noise(network)
    counts = space.count(core, job.core, job.model, inputs, boundaries(space.functions))
    cycles = block_cycles(counts, core)
    rows: dict[int, OperatorCost] = {}
    total = NO_WORK
    for found in attribute(counts, space.functions, network):
        spent = sum(cycles[block] * times for block, times in found.interval.runs.items())
        instructions = sum(counts.blocks[block].instructions * times for block, times in found.interval.runs.items())
        work = _work(found, instructions, round(spent))
        total += work
        if found.operator is not None:
            key = id(found.operator)
            before = rows[key].work if key in rows else NO_WORK
            operator = found.operator
            rows[key] = OperatorCost(
                operator.name, operator.layer, found.kernel, found.function, operator.macs, before + work
            )
    digest = hashlib.sha256(job.model).hexdigest()
    return ArtifactCost(job.artifact, job.part, job.core, digest, network.macs, total, tuple(rows.values()))


def noise(network: Network) -> list[NDArray[Any]]:
    """Inputs for a network from a fixed seed: its kernels do the same work whatever the values are."""
    random = np.random.default_rng(SEED)
    return [
        random.random(shape, dtype=np.float32)
        if kind == "float32"
        else random.integers(np.iinfo(kind).min, np.iinfo(kind).max, shape, np.dtype(kind), endpoint=True)
        for shape, kind in zip(network.input_shapes, network.input_types, strict=True)
    ]


def _models(bundle: Bundle) -> Iterator[tuple[str, Part, bytes]]:
    for part, artifacts in ((Part.DETECTOR, bundle.artifacts), (Part.MESH, bundle.meshes)):
        yield from ((a.name, part, _model(bundle, a)) for a in artifacts if a.backend == TFLITE)


def _model(bundle: Bundle, artifact: Artifact) -> bytes:
    return bundle.read(artifact.files[0])


def _work(found: Attributed, instructions: int, cycles: int) -> Work:
    interval = found.interval
    return Work(
        instructions,
        cycles,
        interval.loads,
        interval.stores,
        interval.l1_misses,
        interval.l2_misses,
        interval.dram_bytes,
    )
