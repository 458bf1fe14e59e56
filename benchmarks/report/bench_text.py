"""A bench result as text: aligned for a terminal, or as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .text import number, table

Rows = list[tuple[str, ...]]


def bench_text(result: Mapping[str, Any]) -> str:
    """Where it was measured, times, what surrounds them, what is absent and what to beware of."""
    lines = [*_conditions(result), "", *table(_times(result)), "", *table(_costs(result))]
    if result.get("meshes"):
        lines += ["", *table(_meshes(result))]
    lines += [f"absent: {entry['name']}: {entry['reason']}" for entry in result["absent"]]
    lines += [f"warning: {warning}" for warning in result["warnings"]]
    return "\n".join(lines)


def bench_markdown(result: Mapping[str, Any]) -> str:
    """The same, for a document."""
    parts = [*(f"- {line}" for line in _conditions(result)), "", *_markdown(_times(result)), ""]
    parts += [*_markdown(_costs(result)), ""]
    if result.get("meshes"):
        parts += [*_markdown(_meshes(result)), ""]
    parts += [f"- absent: {entry['name']}: {entry['reason']}" for entry in result["absent"]]
    parts += [f"- warning: {warning}" for warning in result["warnings"]]
    return "\n".join(parts).rstrip() + "\n"


def _conditions(result: Mapping[str, Any]) -> Iterator[str]:
    machine, rule, frames = result["machine"], result["rule"], result["frames"]
    during = machine["during"]
    yield (
        f"{rule['name']} run, {rule['rounds']} rounds in {rule['seconds']:.0f} s, on core "
        f"{', '.join(map(str, machine['cores']))} of {machine['cores_of_the_machine']}; {frames['count']} frames "
        f"at {frames['width']}x{frames['height']}, input {result['input']}"
    )
    yield f"{machine['processor']} ({machine['architecture']}), {', '.join(machine['features']) or 'no feature known'}"
    yield ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    clock = machine["frequency_mhz"]
    clock = clock if isinstance(clock, str) else ", ".join(f"{value:.0f} MHz {key}" for key, value in clock.items())
    yield f"clock {clock}; governor {machine['governor']}"
    yield f"temperature {_degrees(during['temperature_c'])}; throttling {_throttling(during)}"
    yield (
        f"load before {_loads(machine['load'])}, after {_loads(during['load'])}; of the measured cores others took "
        f"{_percent(during['others'])}, the hypervisor {_percent(during['stolen'])}"
    )
    peak, macs = result["peak_gmacs"], result["multiply_accumulates"]
    int8 = "not measured, which needs openvino" if peak["int8"] is None else f"{peak['int8']:.0f} GMAC/s"
    work = "the bundle does not tell the network's work" if macs is None else f"the network has {macs / 1e9:.3f} GMAC"
    yield f"peak seen: FP32 {peak['fp32']:.0f} GMAC/s, INT8 {int8}; {work}"


def _times(result: Mapping[str, Any]) -> Rows:
    """Milliseconds: whole calls, medians of their parts, and of their processor time, which no neighbour adds to."""
    header = ("ms a frame", "p50", "95 %", "p90", "p99", "best", "frames/s", "pre", "net", "post", "cpu")
    rows: Rows = [(*header, "to ORT FP32", "in cpu time")]
    for row in result["results"]:
        low, high = row["p50_interval_ms"]
        rows.append(
            (
                row["name"],
                *(number(row["p50_ms"], 2), f"{low:.2f}..{high:.2f}"),
                *(number(row[key], 2) for key in ("p90_ms", "p99_ms", "best_ms")),
                number(row["frames_a_second"], 1),
                *(number(row[key], 2) for key in ("pre_ms", "inference_ms", "post_ms", "cpu_ms")),
                *(_ratio(row[key]) for key in ("to_reference", "cpu_to_reference")),
            )
        )
    return rows


def _costs(result: Mapping[str, Any]) -> Rows:
    """What it takes and what it gives: sizes, start, memory, share of the peak, and faces against FP32's."""
    header = ("", "bytes", "first ms", "MB", "GMAC/s", "of peak", "faces", "missed", "score", "corner px", "drift %")
    rows: Rows = [header]
    for row in result["results"]:
        peak = row["peak_bytes"]
        rows.append(
            (
                row["name"],
                f"{row['bytes']:,}" if row["bytes"] else "-",
                number(row["first_result_ms"], 0),
                "-" if peak is None else f"{peak / 1e6:.0f}",
                number(row["gmacs"], 0),
                _percent(row["share_of_peak"]),
                str(row["faces"]),
                "-" if row.get("missed") is None else str(row["missed"]),
                number(row.get("score_difference"), 4),
                number(row.get("corner_difference"), 2),
                number(row.get("drift_percent"), 2),
            )
        )
    return rows


def _meshes(result: Mapping[str, Any]) -> Rows:
    """A frame with meshes against the same frame without, and the dense branch's network alone."""
    rows: Rows = [("ms a frame, 3D meshes", "faces", "without", "with", "ratio", "branch, us a batch")]
    for row in result["meshes"]:
        times = (number(row[key], 2) for key in ("without_ms", "with_ms"))
        rows.append(
            (row["name"], str(row["faces"]), *times, _ratio(row["ratio"]), number(row["branch_microseconds"], 0))
        )
    return rows


def _markdown(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    header, *body = rows
    yield f"| {' | '.join(header)} |"
    yield f"|---|{'---:|' * (len(header) - 1)}"
    for row in body:
        yield f"| {' | '.join(row)} |"


def _ratio(interval: Sequence[float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f} ({interval[1]:.3f}..{interval[2]:.3f})"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _degrees(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.0f} °C"


def _throttling(during: Mapping[str, Any]) -> str:
    if during["throttle_events"] is None and isinstance(during["throttled"], str):
        return str(during["throttled"])
    return "yes" if during["throttle_events"] or during["throttled"] is True else "none"


def _loads(load: Sequence[float]) -> str:
    return " ".join(f"{value:.2f}" for value in load)
