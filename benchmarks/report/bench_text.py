"""A bench result as text: aligned for a terminal, or as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..environment import NOT_TOLD, MachineUse
from ..latency.result import BenchResult
from ..linux import Frequency
from ..stats.bootstrap import Ratio
from .text import number, table

Rows = list[tuple[str, ...]]


NOTES = (
    "pre, net and post are medians of their own; cpu is processor time, which other programs do not add to",
    "missed: faces of ONNX Runtime FP32 without a match, an IoU of 0.5 or more; score, corner px: the largest "
    "differences of matched faces",
    "drift %: 100 % less the mean IoU of every box with its match in ONNX Runtime FP32's, 0 for a box without one",
)
"""What the columns mean."""


def bench_text(result: BenchResult) -> str:
    """Where it was measured, times, what surrounds them, what is absent and what to beware of."""
    lines = [*_conditions(result), "", *table(_times(result)), "", *table(_costs(result))]
    if result.meshes:
        lines += ["", *table(_meshes(result))]
    lines += ["", *NOTES]
    lines += [f"absent: {entry.name}: {entry.reason}" for entry in result.absent]
    lines += [f"warning: {warning}" for warning in result.warnings]
    return "\n".join(lines)


def bench_markdown(result: BenchResult) -> str:
    """The same, for a document."""
    parts = [*(f"- {line}" for line in _conditions(result)), "", *_markdown(_times(result)), ""]
    parts += [*_markdown(_costs(result)), ""]
    if result.meshes:
        parts += [*_markdown(_meshes(result)), ""]
    parts += [f"- {note}" for note in NOTES]
    parts += [f"- absent: {entry.name}: {entry.reason}" for entry in result.absent]
    parts += [f"- warning: {warning}" for warning in result.warnings]
    return "\n".join(parts).rstrip() + "\n"


def _conditions(result: BenchResult) -> Iterator[str]:
    machine, use, run, frames = result.machine, result.machine_use, result.run, result.frames
    width, height = result.input_px
    yield (
        f"{run.name} run, {run.rounds} rounds in {run.seconds:.0f} s, on core {', '.join(map(str, machine.cores))} of "
        f"{machine.machine_cores}; {frames.count} frames at {frames.width}x{frames.height}, input {width}x{height}"
    )
    features = ", ".join(machine.features) or "no feature known"
    yield f"{machine.processor or NOT_TOLD} ({machine.architecture}), {features}"
    libraries = {name: value for name, value in result.environment.items() if name not in ("machine", "processor")}
    yield ", ".join(f"{name} {version}" for name, version in libraries.items())
    yield f"clock {_clock(machine.frequency)}; governor {machine.governor or NOT_TOLD}"
    yield f"temperature {_degrees(use.temperature_c)}; throttling {_throttling(use)}"
    yield (
        f"load before {_loads(machine.load)}, after {_loads(use.load)}; of the measured cores' time others took "
        f"{percent(use.others_share)}, the hypervisor {percent(use.stolen_share)}"
    )
    peak, macs = result.peak, result.multiply_accumulates
    int8 = peak.int8_gmac_per_second
    told = "not measured, which needs openvino" if int8 is None else f"{int8:.0f} GMAC/s"
    work = "the bundle does not tell the network's work" if macs is None else f"the network has {macs / 1e9:.3f} GMAC"
    yield f"peak seen: FP32 {peak.fp32_gmac_per_second:.0f} GMAC/s, INT8 {told}; {work}"


def _times(result: BenchResult) -> Rows:
    """Milliseconds: whole calls, medians of their parts, and of their processor time."""
    header = ("ms per frame", "p50", "95 %", "p90", "p99", "best", "frames/s", "pre", "net", "post", "cpu")
    rows: Rows = [(*header, "to ORT FP32", "in cpu time")]
    for runner in result.runners:
        times = runner.latency
        rows.append(
            (
                runner.name,
                *(number(times.p50_ms, 2), f"{times.p50_low_ms:.2f}..{times.p50_high_ms:.2f}"),
                *(number(value, 2) for value in (times.p90_ms, times.p99_ms, times.best_ms)),
                number(times.frames_per_second, 1),
                *(number(value, 2) for value in (times.pre_ms, times.inference_ms, times.post_ms, times.cpu_ms)),
                *(_ratio(ratio) for ratio in (runner.to_reference, runner.cpu_to_reference)),
            )
        )
    return rows


def _costs(result: BenchResult) -> Rows:
    """What it takes and what it gives: sizes, start, memory, share of the peak, and faces against FP32's."""
    header = ("", "bytes", "first ms", "MB", "GMAC/s", "of peak", "faces", "missed", "score", "corner px", "drift %")
    rows: Rows = [header]
    for runner in result.runners:
        memory, agreement = runner.cold_start.peak_memory_bytes, runner.agreement
        rows.append(
            (
                runner.name,
                f"{runner.size_bytes:,}" if runner.size_bytes else "-",
                number(runner.cold_start.first_faces_ms, 0),
                "-" if memory is None else f"{memory / 1e6:.0f}",
                number(runner.gmac_per_second, 0),
                percent(runner.share_of_peak),
                str(runner.faces),
                str(agreement.missed_faces) if agreement else "-",
                number(agreement.score_difference if agreement else None, 4),
                number(agreement.corner_difference_px if agreement else None, 2),
                number(agreement.drift_percent if agreement else None, 2),
            )
        )
    return rows


def _meshes(result: BenchResult) -> Rows:
    """A frame with meshes against the same frame without, and the dense branch's network alone."""
    rows: Rows = [("ms per frame, 3D meshes", "faces", "without", "with", "ratio", "branch, us per batch")]
    for cost in result.meshes:
        times = (number(value, 2) for value in (cost.without_ms, cost.with_ms))
        rows.append((str(cost.artifact), str(cost.faces), *times, _ratio(cost.ratio), number(cost.branch_us, 0)))
    return rows


def _markdown(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    header, *body = rows
    yield f"| {' | '.join(header)} |"
    yield f"|---|{'---:|' * (len(header) - 1)}"
    for row in body:
        yield f"| {' | '.join(row)} |"


def _ratio(ratio: Ratio | None) -> str:
    return "-" if ratio is None else f"{ratio.value:.3f} ({ratio.low:.3f}..{ratio.high:.3f})"


def percent(share: float | None) -> str:
    """A share of 0…1 in whole percent, or a dash where there is none."""
    return "-" if share is None else f"{share:.0%}"


def _clock(frequency: Frequency | None) -> str:
    if frequency is None:
        return NOT_TOLD
    most = "" if frequency.max_mhz is None else f", {frequency.max_mhz:.0f} MHz at most"
    return f"{frequency.now_mhz:.0f} MHz now{most}"


def _degrees(value: float | None) -> str:
    return NOT_TOLD if value is None else f"{value:.0f} °C"


def _throttling(use: MachineUse) -> str:
    if use.throttle_events is None and use.throttled is None:
        return NOT_TOLD
    return "yes" if use.throttle_events or use.throttled else "none"


def _loads(load: Sequence[float]) -> str:
    return " ".join(f"{value:.2f}" for value in load)
