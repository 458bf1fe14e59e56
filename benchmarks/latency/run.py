"""The bench: measure all contestants in one run, and make one result of it, with what is needed to trust it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.ops.iou import detection_drift, iou

from ..environment import SPREAD, describe_machine, warnings_of
from ..inference.network_under_test import environment
from ..results import FORMAT_VERSION
from ..stats.bootstrap import median_interval, paired_ratio
from .cold_start import FirstResult, first_result
from .compute_peak import Peak, measure_peak
from .mesh_cost import frame_with_faces, mesh_costs
from .pinned_process import run_pinned
from .rounds import INFERENCE, POST, PRE, Measured, Rule, measure_latency
from .runners import ARTIFACT, PEER, Absent, Contestant, Frame

REFERENCE = "onnxruntime fp32"
MATCHED = 0.5
MICROSECONDS = 1e6
MOST_MESH_ROUNDS = 128

Progress = Callable[[Iterable[int]], Iterable[int]]


def bench(
    bundle: Bundle,
    contestants: Sequence[Contestant],
    absent: Sequence[Absent],
    frames: Sequence[Frame],
    rule: Rule,
    cores: Sequence[int],
    stage: Callable[[str], None] = lambda text: None,
    progress: Progress = iter,
) -> dict[str, Any]:
    """Measure `contestants` on `frames` (uint8 BGR, all of one size), each with as many threads as there are `cores`.

    Everything runs in processes of its own that are held to `cores`. `stage` is told what begins, `progress` wraps the
    rounds. Raises `MeasurementError` when nothing can be measured.
    """
    machine = describe_machine(cores)
    stage(f"measure the peak of core {', '.join(map(str, cores))}")
    peak = run_pinned(measure_peak, cores, cores=cores)
    stage(f"time {len(contestants)} contestants, {rule.name} run")
    measured = run_pinned(measure_latency, contestants, frames, rule, cores, progress, cores=cores)
    meshes = _meshes(bundle, contestants, frames, measured, cores, stage)
    peak = peak.better(run_pinned(measure_peak, cores, cores=cores))
    stage("first results, memory and threads, each in a process of its own")
    present = [contestant for contestant in contestants if contestant.name in measured.times]
    first = {c.name: run_pinned(first_result, c, frames[0], cores, cores=cores) for c in present}
    macs = bundle.manifest.get("provenance", {}).get("network", {}).get("multiply_accumulates")
    rows = [_row(contestant, measured, first[contestant.name], macs, peak, len(cores)) for contestant in present]
    height, width = frames[0].shape[:2]
    return {
        "kind": "bench",
        "format_version": FORMAT_VERSION,
        "environment": dict(environment()),
        "artifacts": [
            {"name": c.name, "backend": c.backend, "precision": c.precision, "bytes": c.bytes, "digest": c.digest}
            for c in present
            if c.kind == ARTIFACT
        ],
        "bundle": {"digest": bundle.manifest["digest"], "provenance": bundle.manifest.get("provenance", {})},
        "input": f"{bundle.spec.width}x{bundle.spec.height}",
        "frames": {"count": len(frames), "width": width, "height": height, "digest": _digest(frames)},
        "rule": {"name": rule.name, "rounds": len(measured.yardstick), "seconds": measured.monitor["seconds"]},
        "machine": {**machine, "during": measured.monitor},
        "peak_gmacs": {"fp32": peak.fp32 / 1e9, "int8": None if peak.int8 is None else peak.int8 / 1e9},
        "multiply_accumulates": macs,
        "warnings": list(_warnings(machine, measured, rows, first, len(cores))),
        "results": rows,
        **({"meshes": meshes} if meshes else {}),
        "absent": [{"name": entry.name, "reason": entry.reason} for entry in (*absent, *measured.absent)],
        "samples": {
            "microseconds": {name: _microseconds(times.T) for name, times in measured.times.items()},
            "processor_microseconds": {name: _microseconds(work.T) for name, work in measured.work.items()},
            "yardstick": _microseconds(measured.yardstick),
        },
    }


def _meshes(
    bundle: Bundle,
    contestants: Sequence[Contestant],
    frames: Sequence[Frame],
    measured: Measured,
    cores: Sequence[int],
    stage: Callable[[str], None],
) -> list[dict[str, Any]]:
    """What meshes cost those artifacts of the bundle that were measured, on the frame with about five faces."""
    own = [c for c in contestants if c.kind == ARTIFACT and c.name in measured.times]
    dense = {mesh.name for mesh in bundle.meshes}
    artifacts = [(c.backend, c.precision) for c in own if c.name in dense]
    if not artifacts:
        return []
    frame = frame_with_faces(frames, [len(boxes) for boxes in measured.boxes[own[0].name]])
    if frame is None:
        stage("no frame shows a face, so what a mesh costs is not measured")
        return []
    stage(f"what meshes cost {len(artifacts)} artifacts")
    rounds = min(MOST_MESH_ROUNDS, len(measured.yardstick))
    return run_pinned(mesh_costs, bundle.path, artifacts, frame, len(cores), rounds, cores=cores)


def whole_calls(result: Mapping[str, Any], name: str) -> NDArray[np.float64]:
    """Seconds of every whole call of one contestant in a result, (rounds,).

    On one core in processor time: the turns of other programs on it are no work of the call's. On several, whose
    waiting for each other is part of the price, by the wall's clock.
    """
    clock = "processor_microseconds" if len(result["machine"]["cores"]) == 1 else "microseconds"
    stages = np.array(result["samples"][clock][name], np.float64)
    return np.asarray(stages.sum(axis=0) / MICROSECONDS)


def yardstick(result: Mapping[str, Any]) -> NDArray[np.float64]:
    """Seconds of the fixed piece of work in every round of a result, (rounds,)."""
    return np.array(result["samples"]["yardstick"], np.float64) / MICROSECONDS


def _row(
    contestant: Contestant, measured: Measured, first: FirstResult, macs: int | None, peak: Peak, cores: int
) -> dict[str, Any]:
    times = measured.times[contestant.name]
    calls = times.sum(axis=1)
    stages = np.median(times, axis=0) * 1e3
    work = measured.work[contestant.name]
    low, high = median_interval(calls)
    # Nearest rank, as MLPerf has it: a percentile is a time that was measured.
    p50, p90, p99 = np.percentile(calls, [50, 90, 99], method="inverted_cdf").tolist()
    precision = measured.precisions.get(contestant.name, contestant.precision)
    inference = float(np.median(work[:, INFERENCE]))
    # Of one core's time, what others took is left out; several cores' times would add up.
    taken = inference if cores == 1 else float(stages[INFERENCE]) * 1e-3
    rate = macs / taken if macs and contestant.same_network else None
    most = {"fp32": peak.fp32, "int8": peak.int8}.get(precision)
    return {
        "name": contestant.name,
        "kind": contestant.kind,
        "backend": contestant.backend,
        "precision": precision,
        "bytes": contestant.bytes,
        "milliseconds": p50 * 1e3,
        "p50_ms": p50 * 1e3,
        "p90_ms": p90 * 1e3,
        "p99_ms": p99 * 1e3,
        "best_ms": float(calls.min()) * 1e3,
        "p50_interval_ms": [low * 1e3, high * 1e3],
        "frames": len(calls),
        "frames_a_second": float(len(calls) / calls.sum()),
        "pre_ms": float(stages[PRE]),
        "inference_ms": float(stages[INFERENCE]),
        "post_ms": float(stages[POST]),
        "cpu_ms": float(np.median(work.sum(axis=1))) * 1e3,
        "cpu_inference_ms": inference * 1e3,
        "first_result_ms": first.seconds * 1e3,
        "peak_bytes": first.peak_bytes,
        "threads": first.threads,
        "gmacs": None if rate is None else rate / 1e9,
        "share_of_peak": None if rate is None or most is None else rate / most,
        "faces": sum(map(len, measured.boxes[contestant.name])),
        "to_reference": _to_reference(contestant.name, measured.times),
        "cpu_to_reference": _to_reference(contestant.name, measured.work),
        **(_agreement(contestant.name, measured) if contestant.kind != PEER else {}),
    }


def _to_reference(name: str, times: Mapping[str, NDArray[np.float64]]) -> list[float] | None:
    """The median against ONNX Runtime FP32's, and its interval."""
    if REFERENCE not in times:
        return None
    return list(paired_ratio(times[name].sum(axis=1), times[REFERENCE].sum(axis=1)))


def _agreement(name: str, measured: Measured) -> dict[str, Any]:
    """How far an artifact's faces are from FP32's: those missed, and the largest differences of those matched."""
    if REFERENCE not in measured.boxes:
        return {"missed": None, "score_difference": None, "corner_difference": None, "drift_percent": None}
    score = corner = 0.0
    missed = 0
    wanted_boxes, wanted_scores = measured.boxes[REFERENCE], measured.scores[REFERENCE]
    found = zip(measured.boxes[name], measured.scores[name], wanted_boxes, wanted_scores, strict=True)
    for boxes, scores, expected_boxes, expected_scores in found:
        overlaps = iou(expected_boxes, boxes)
        for index in range(len(expected_boxes)):
            match = int(overlaps[index].argmax()) if len(boxes) else -1
            if match < 0 or overlaps[index, match] < MATCHED:
                missed += 1
                continue
            score = max(score, float(abs(expected_scores[index] - scores[match])))
            corner = max(corner, float(np.abs(expected_boxes[index] - boxes[match]).max()))
    return {
        "missed": missed,
        "score_difference": score,
        "corner_difference": corner,
        "drift_percent": detection_drift(wanted_boxes, measured.boxes[name]),
    }


def _warnings(
    machine: Mapping[str, Any],
    measured: Measured,
    rows: Sequence[Mapping[str, Any]],
    first: Mapping[str, FirstResult],
    cores: int,
) -> Iterator[str]:
    beyond = max(measured.beyond, *(result.beyond for result in first.values()))
    yield from warnings_of(machine, measured.monitor, measured.steady, beyond)
    for row in rows:
        if row["threads"] > cores:
            yield f"{row['name']} works with {row['threads']} threads on {cores} cores"
    if spread := [row["name"] for row in rows if row["p90_ms"] > SPREAD * row["p50_ms"]]:
        yield f"p90 is more than {SPREAD:g} times p50, which a quiet machine stays below: {'; '.join(spread)}"


def _microseconds(seconds: NDArray[np.float64]) -> Any:
    return np.round(seconds * MICROSECONDS).astype(int).tolist()


def _digest(frames: Sequence[Frame]) -> str:
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(repr(frame.shape).encode())
        digest.update(np.ascontiguousarray(frame).tobytes())
    return digest.hexdigest()
