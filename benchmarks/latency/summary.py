"""The figures of one runner, from what was measured in all rounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.ops.iou import detection_drift, iou

from ..environment import Machine, disturbances
from ..inference.network_under_test import REFERENCE
from ..stats.bootstrap import Ratio, median_interval, paired_ratio
from .result import Agreement, ColdStart, ComputePeak, Latency, RunnerKind, RunnerResult, Samples
from .rounds import INFERENCE, POST, PRE, Measurements
from .runners import Runner

MATCHED_IOU = 0.5
FEW_FACES = 20
"""With fewer faces in the frames, agreement with FP32 is called doubtful."""
SPREAD = 1.25
"""Above this p90 over p50 a run is called disturbed."""


@dataclass(frozen=True)
class Conditions:
    """What the speed of a network is held against: the cores' peak, and the network's multiply–accumulates."""

    peak: ComputePeak
    multiply_accumulates: int | None
    cores: int


def summarise(runner: Runner, measured: Measurements, cold_start: ColdStart, conditions: Conditions) -> RunnerResult:
    """The result of one runner."""
    latency = latency_of(measured.times[runner.name], measured.work[runner.name])
    precision = measured.precisions.get(runner.name, runner.precision)
    # Of one core's time, what others took is left out; several cores' times would add up.
    seconds = (latency.cpu_inference_ms if conditions.cores == 1 else latency.inference_ms) / 1e3
    macs, peak = conditions.multiply_accumulates, conditions.peak.of(precision)
    rate = macs / seconds / 1e9 if macs and runner.same_network else None
    return RunnerResult(
        name=runner.name,
        kind=runner.kind,
        backend=runner.backend,
        precision=precision,
        size_bytes=runner.size_bytes,
        faces=sum(map(len, measured.boxes[runner.name])),
        latency=latency,
        cold_start=cold_start,
        samples=Samples.of_seconds(measured.times[runner.name]),
        cpu_samples=Samples.of_seconds(measured.work[runner.name]),
        artifact=runner.artifact,
        digest=runner.digest,
        gmac_per_second=rate,
        share_of_peak=None if rate is None or peak is None else rate / peak,
        to_reference=_to_reference(runner.name, measured.times),
        cpu_to_reference=_to_reference(runner.name, measured.work),
        agreement=None if runner.kind is RunnerKind.COMPETITOR else _agreement(runner.name, measured),
    )


def warnings_of(machine: Machine, measured: Measurements, runners: Sequence[RunnerResult]) -> Iterator[str]:
    """What makes the figures doubtful, in plain sentences."""
    beyond = max(measured.beyond, *(runner.cold_start.threads_beyond_cores or 0 for runner in runners))
    yield from disturbances(machine, measured.use, measured.steady, beyond)
    reference, cores = measured.boxes.get(str(REFERENCE)), len(machine.cores)
    if reference is not None and (faces := sum(map(len, reference))) < FEW_FACES:
        yield f"the frames show {faces} faces, too few to trust drift: give photographs with {FEW_FACES} or more"
    for runner in runners:
        if runner.cold_start.working_threads > cores:
            yield f"{runner.name} works with {runner.cold_start.working_threads} threads on {cores} cores"
    if spread := [runner.name for runner in runners if runner.latency.p90_ms > SPREAD * runner.latency.p50_ms]:
        yield f"p90 is more than {SPREAD:g} times p50, which a quiet machine stays below: {'; '.join(spread)}"


def latency_of(times: NDArray[np.float64], work: NDArray[np.float64]) -> Latency:
    """From seconds (rounds, 3), by the wall clock and in processor time."""
    calls = times.sum(axis=1)
    phases = np.median(times, axis=0) * 1e3
    low, high = median_interval(calls)
    # Nearest rank, as MLPerf has it: a percentile is a time that was measured.
    p50, p90, p99 = np.percentile(calls, [50, 90, 99], method="inverted_cdf").tolist()
    return Latency(
        p50_ms=p50 * 1e3,
        p50_low_ms=low * 1e3,
        p50_high_ms=high * 1e3,
        p90_ms=p90 * 1e3,
        p99_ms=p99 * 1e3,
        best_ms=float(calls.min()) * 1e3,
        pre_ms=float(phases[PRE]),
        inference_ms=float(phases[INFERENCE]),
        post_ms=float(phases[POST]),
        cpu_ms=float(np.median(work.sum(axis=1))) * 1e3,
        cpu_inference_ms=float(np.median(work[:, INFERENCE])) * 1e3,
        frames_per_second=float(len(calls) / calls.sum()),
    )


def _to_reference(name: str, times: Mapping[str, NDArray[np.float64]]) -> Ratio | None:
    """The median against ONNX Runtime FP32's."""
    reference = times.get(str(REFERENCE))
    return None if reference is None else paired_ratio(times[name].sum(axis=1), reference.sum(axis=1))


def _agreement(name: str, measured: Measurements) -> Agreement | None:
    """How near an artifact's faces are to FP32's."""
    reference = str(REFERENCE)
    if reference not in measured.boxes:
        return None
    score = corner = 0.0
    missed = 0
    wanted_boxes, wanted_scores = measured.boxes[reference], measured.scores[reference]
    found = zip(measured.boxes[name], measured.scores[name], wanted_boxes, wanted_scores, strict=True)
    for boxes, scores, expected_boxes, expected_scores in found:
        overlaps = iou(expected_boxes, boxes)
        for index in range(len(expected_boxes)):
            match = int(overlaps[index].argmax()) if len(boxes) else -1
            if match < 0 or overlaps[index, match] < MATCHED_IOU:
                missed += 1
                continue
            score = max(score, float(abs(expected_scores[index] - scores[match])))
            corner = max(corner, float(np.abs(expected_boxes[index] - boxes[match]).max()))
    return Agreement(missed, score, corner, detection_drift(wanted_boxes, measured.boxes[name]))
