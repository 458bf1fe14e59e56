"""What `choose` found, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from ..choose.result import Candidate, ChooseResult
from .text import number, table

MARK = "*"


def choose_text(result: ChooseResult) -> str:
    """A row for each candidate, the fastest first; the bundles and their licences; and the recommendation."""
    lines = [*_conditions(result), "", *table(candidate_rows(result)), ""]
    lines.append(f"{MARK} on the front: no other one is as fast and as accurate. {_clock(result)}")
    lines += ["", *table([("bundle", "detector", "input", "licence of the weights"), *_bundles(result)])]
    lines += [f"absent: {entry.name}: {entry.reason}" for entry in result.absent]
    lines += [f"warning: {warning}" for warning in result.warnings]
    picked = result.recommendation
    name = "none" if picked.bundle is None else f"{picked.bundle} {picked.artifact}"
    return "\n".join([*lines, "", f"recommended: {name}: {picked.reason}"])


def candidate_rows(result: ChooseResult) -> list[tuple[str, ...]]:
    """Header and a row for each candidate, the fastest first."""
    header = ("", "bundle", "artifact", "AP" if result.reference is None else "agreement", "ms", "p50", "p90")
    fastest_first = sorted(result.candidates, key=lambda candidate: candidate.ms)
    return [(*header, "bytes", "MB", "first ms"), *map(_row, fastest_first)]


def _conditions(result: ChooseResult) -> Iterator[str]:
    dataset, frames, run = result.dataset, result.frames, result.run
    note = f" ({dataset.note})" if dataset.note else ""
    yield f"{dataset.name}{note}: {result.images.count} pictures, {dataset.protocol}, whole pictures"
    yield from (f"skipped {image.name}: {image.reason}" for image in result.images.skipped)
    cores, size = ", ".join(map(str, result.machine.cores)), f"{frames.width}x{frames.height}"
    yield f"{run.name} run, {run.rounds} rounds in {run.seconds:.0f} s, on core {cores}"
    yield f"{frames.count} frames at {size}; budget {result.budget_ms:g} ms"


def _row(candidate: Candidate) -> tuple[str, ...]:
    memory = candidate.peak_memory_bytes
    return (
        MARK if candidate.on_front else "",
        candidate.bundle,
        str(candidate.artifact),
        number(candidate.ap, 4),
        *(number(value, 2) for value in (candidate.ms, candidate.p50_ms, candidate.p90_ms)),
        f"{candidate.size_bytes:,}",
        "-" if memory is None else f"{memory / 1e6:.0f}",
        number(candidate.first_faces_ms, 0),
    )


def _bundles(result: ChooseResult) -> Iterator[tuple[str, ...]]:
    for bundle in result.bundles:
        yield bundle.name, bundle.detector, "{}x{}".format(*bundle.input_px), bundle.licence


def _clock(result: ChooseResult) -> str:
    if len(result.machine.cores) == 1:
        return "ms is the median in processor time, p50 and p90 are by the wall clock."
    return "ms and p50 are the median, by the wall clock."
