"""Results of format 1, the last version's, converted to the present format.

Only names and shapes change here; whether fields are all there and of the right type is checked by the reader of the
outcome. A field that format 1 did not know is left as it is, so that it is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Change = Callable[[Any], Any]
BACKENDS = ("openvino", "tflite", "onnxruntime")
AP_OF_TRUTH = "ap_"
NOT_TOLD = "not told by this system"
PHASES = ("pre_us", "inference_us", "post_us")
RATIO = ("value", "low", "high")
TIMES = ("p50_ms", "p50_low_ms", "p50_high_ms", "p90_ms", "p99_ms", "best_ms", "pre_ms", "inference_ms", "post_ms")
BENCH_GROUPS: Mapping[str, Mapping[str, str]] = {
    "latency": {
        **{name: name for name in (*TIMES, "cpu_ms", "cpu_inference_ms")},
        "frames_a_second": "frames_per_second",
    },
    "cold_start": {
        "first_result_ms": "first_faces_ms",
        "peak_bytes": "peak_memory_bytes",
        "threads": "working_threads",
    },
    "agreement": {
        "missed": "missed_faces",
        "score_difference": "score_difference",
        "corner_difference": "corner_difference_px",
        "drift_percent": "drift_percent",
    },
}
"""Figures of a row of bench that are now grouped: by group, old name to new."""


def upgraded(content: Mapping[str, Any]) -> dict[str, Any]:
    """A result of format 1 with the field names of format 2."""
    kinds = {"drift": _drift, "eval": _eval, "compare": _compare, "bench": _bench}
    change = kinds.get(str(content.get("kind")))
    return dict(change(content) if change else content)


def _drift(result: Mapping[str, Any]) -> Any:
    return _object(
        result,
        {"artifacts": "networks", "input": "input_px"},
        networks=_each(_network),
        input_px=_size,
        comparisons=_each(_comparison),
        worst_images=_each(lambda worst: _object(worst, {"badness": "visible_difference"})),
        layers=_each(_layers),
        meshes=_each(_mesh),
    )


def _eval(result: Mapping[str, Any]) -> Any:
    return _object(
        result,
        {"artifacts": "networks", "input": "input_px", "set": "dataset"},
        networks=_each(_network),
        input_px=_size,
        dataset=lambda described: _object(described, {"least_face": "least_face_px"}),
        results=_each(lambda row: _object(row, {}, recall_by_size=_each(_size_band))),
    )


def _compare(result: Mapping[str, Any]) -> Any:
    names = {"a": "ap_a", "b": "ap_b", "low": "difference_low", "high": "difference_high"}
    changed = _object(result, {}, changes=_each(lambda change: _object(change, names)))
    if changed.get("artifacts") == []:  # format 1 always wrote it, and always empty
        del changed["artifacts"]
    return changed


def _bench(result: Mapping[str, Any]) -> Any:
    """Samples and digests move into the runner that they are of, what the machine did meanwhile out of the machine."""
    names = {"input": "input_px", "rule": "run", "peak_gmacs": "peak", "results": "runners"}
    changed = _object(result, names, input_px=_size, peak=_peak, meshes=_each(_mesh_cost))
    samples, networks, machine = (changed.get(name) for name in ("samples", "artifacts", "machine"))
    if isinstance(samples, dict):
        changed["yardstick_us"] = samples.get("yardstick")
        clocks = {"samples": "microseconds", "cpu_samples": "processor_microseconds"}
        by_clock = {name: samples[old] for name, old in clocks.items() if isinstance(samples.get(old), dict)}
        changed["runners"] = _each(lambda row: _runner(row, by_clock))(changed.get("runners"))
        del changed["samples"]
    if _are_named(networks) and isinstance(changed.get("runners"), list):
        digests = {row["name"]: row.get("digest") for row in networks}
        for runner in changed["runners"]:
            if isinstance(runner, dict) and (name := str(runner.get("name"))) in digests:
                runner["digest"] = digests[name]
        del changed["artifacts"]
    if isinstance(machine, dict) and isinstance(machine.get("during"), dict):
        changed["machine"], changed["machine_use"] = _machine(machine)
    return changed


def _runner(row: Any, samples: Mapping[str, Mapping[str, Any]]) -> Any:
    """A row of bench with its figures grouped, and its samples by clock."""
    changed = _object(row, {"bytes": "size_bytes", "gmacs": "gmac_per_second"})
    if not isinstance(changed, dict):
        return changed
    interval = changed.pop("p50_interval_ms", None)
    if isinstance(interval, list) and len(interval) == 2:
        changed["p50_low_ms"], changed["p50_high_ms"] = interval
    for group, names in BENCH_GROUPS.items():
        changed[group] = {new: changed.pop(old) for old, new in names.items() if old in changed}
    if changed["agreement"].get("missed_faces") is None:  # of a competitor, or without FP32 to compare with
        del changed["agreement"]
    for ratio in ("to_reference", "cpu_to_reference"):
        changed[ratio] = _ratio(changed.get(ratio))
    for old in ("milliseconds", "frames"):  # the median, and the number of samples
        changed.pop(old, None)
    name = str(changed.get("name"))
    for clock, by_name in samples.items():
        if isinstance(phases := by_name.get(name), list) and len(phases) == len(PHASES):
            changed[clock] = dict(zip(PHASES, phases, strict=True))
    if changed.get("kind") == "peer":
        changed["kind"] = "competitor"
    else:
        changed["artifact"] = _artifact(name.removeprefix("baseline "))
    return changed


def _machine(machine: Mapping[str, Any]) -> tuple[Any, Any]:
    names = {"cores_of_the_machine": "machine_cores", "frequency_mhz": "frequency"}
    during = {key: None if value == NOT_TOLD else value for key, value in machine["during"].items()}
    left_out = ("during", "libraries")  # the libraries are those of the environment
    told = {key: None if value == NOT_TOLD else value for key, value in machine.items() if key not in left_out}
    shares = {"ours": "own_share", "others": "others_share", "stolen": "stolen_share", "waited": "waiting_share"}
    return _object(told, names, frequency=_frequency), _object(during, {**shares, "switched_away": "preemptions"})


def _frequency(clock: Any) -> Any:
    return _object(clock, {"now": "now_mhz", "most": "max_mhz"})


def _are_named(rows: Any) -> bool:
    return isinstance(rows, list) and all(isinstance(row, dict) and isinstance(row.get("name"), str) for row in rows)


def _peak(peak: Any) -> Any:
    return _object(peak, {"fp32": "fp32_gmac_per_second", "int8": "int8_gmac_per_second"})


def _mesh_cost(mesh: Any) -> Any:
    names = {"name": "artifact", "branch_microseconds": "branch_us"}
    return _object(mesh, names, artifact=_artifact, ratio=_ratio)


def _ratio(interval: Any) -> Any:
    """`[ratio, low, high]` by name."""
    if not isinstance(interval, list) or len(interval) != len(RATIO):
        return interval
    return dict(zip(RATIO, interval, strict=True))


def _artifact(name: Any) -> Any:
    """`openvino int8` as an object."""
    backend, _, precision = str(name).partition(" ")
    return {"backend": backend, "precision": precision}


def _network(network: Mapping[str, Any]) -> Any:
    """Backend and precision become the artifact; what was not an artifact of a bundle had a backend of its own."""
    changed = _object(network, {"bytes": "size_bytes"})
    if isinstance(changed, dict) and {"backend", "precision"} <= set(changed):
        backend, precision = changed.pop("backend"), changed.pop("precision")
        if backend in BACKENDS:
            changed["artifact"] = {"backend": backend, "precision": precision}
    return changed


def _comparison(comparison: Mapping[str, Any]) -> Any:
    lost = _each(lambda face: _object(face, {"size": "size_px", "faint": "below_threshold"}))
    image = _each(lambda row: _object(row, {"landmark_shift_mean": "landmark_shift_mean_share"}))
    changed = _object(comparison, {}, detections=_detections, missed=lost, invented=lost, per_image=image)
    if isinstance(changed, dict):
        changed.pop("precision", None)  # that of the network named `artifact`
    return changed


def _detections(detections: Mapping[str, Any]) -> Any:
    names = {
        "missed_faint": "missed_below_threshold",
        "invented_faint": "invented_below_threshold",
        "score_shift_absolute": "score_shift_absolute_mean",
        "score_shift_largest": "score_shift_absolute_largest",
        "landmark_shift_mean": "landmark_shift_mean_share",
        "landmark_shift_p95": "landmark_shift_p95_share",
    }
    score_band = _each(lambda band: _object(band, {"from": "from_score", "to": "to_score"}))
    changed = _object(detections, names, by_size=_each(_size_band), by_score=score_band)
    if isinstance(changed, dict):
        truths = [name for name in changed if name.startswith(AP_OF_TRUTH)]
        changed["ap"] = {name.removeprefix(AP_OF_TRUTH): changed.pop(name) for name in truths}
    return changed


def _layers(comparison: Mapping[str, Any]) -> Any:
    names = {"born_sqnr_db": "introduced_sqnr_db", "sqnr_db": "accumulated_sqnr_db"}
    return _object(comparison, {"born_in": "introduced_most_in"}, layers=_each(lambda layer: _object(layer, names)))


def _mesh(mesh: Mapping[str, Any]) -> Any:
    names = {f"{which}_percent": f"{which}_percent_of_size" for which in ("mean", "median", "worst")}
    shown = _each(lambda face: _object(face, {"percent": "percent_of_size"}))
    return _object(mesh, {**names, "pose_degrees": "pose_difference_degrees"}, shown=shown)


def _size_band(band: Mapping[str, Any]) -> Any:
    return _object(band, {"from": "from_px", "to": "to_px"})


def _size(text: Any) -> Any:
    """`640x480` as [640, 480]; `unknown`, of predictions made elsewhere, as None."""
    if text == "unknown":
        return None
    width, x, height = str(text).partition("x")
    return [int(width), int(height)] if x and width.isdecimal() and height.isdecimal() else text


def _object(value: Any, names: Mapping[str, str], **changes: Change) -> Any:
    """An object with fields renamed and then, by their new names, changed; what is not an object is left as it is."""
    if not isinstance(value, Mapping):
        return value
    renamed = {names.get(key, key): item for key, item in value.items()}
    return {key: changes[key](item) if key in changes else item for key, item in renamed.items()}


def _each(change: Change) -> Change:
    """The change made to every entry of a list; what is not a list is left as it is."""
    return lambda value: [change(item) for item in value] if isinstance(value, list) else value
