"""The report's tables: header, rows, and what the columns mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..accuracy.result import EvalResult
from ..drift.result import Comparison, DriftResult, MeshDrift
from ..identity.result import IdentityFloor
from ..inference.network_under_test import REFERENCE
from ..latency.result import BenchResult, MeshCost
from ..results import BundleOrigin, ImageSet
from .bench_text import percent
from .identity_text import low_cells, recogniser_sentence, tar_cell
from .result_plots import set_name
from .text import band, number, recall_rows, worst_output

Rows = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Table:
    """A table: its header, its rows, and sentences on what the columns mean."""

    header: tuple[str, ...]
    rows: Rows
    notes: tuple[str, ...] = ()


def summary(
    artifacts: Mapping[str, int], drift: DriftResult | None, evals: Sequence[EvalResult], bench: BenchResult | None
) -> Table:
    """One row per artifact; `artifacts` has their bytes by name, 0 where they are not known."""
    against = {row.artifact: row for row in drift.comparisons if row.reference.endswith("fp32")} if drift else {}
    times = {runner.name: runner.latency.p50_ms for runner in bench.runners} if bench else {}
    header, notes = ["artifact", "bytes"], []
    if bench:
        header += ["ms per frame"]
        notes += ["ms per frame: median from frame to faces."]
    if drift:
        header += ["AP to FP32", "missed", "invented", "IoU", "least SQNR, dB"]
        notes += [
            "AP to FP32: average precision with FP32's faces from score 0.5 on as the truth; missed and invented are "
            f"faces that only FP32 or only the artifact has from score {drift.score_threshold:g} on; IoU is the mean "
            "overlap of matched boxes; SQNR is signal to error of the worst output where faces may be.",
        ]
    for result in evals:
        header += [f"AP {result.dataset.name}, {setting}" for setting in result.results[0].ap]
    if evals:
        notes += ["AP with a set's name: average precision against its annotation."]
    rows = []
    for name, size in artifacts.items():
        row = [name, f"{size:,}" if size else "-"]
        row += [number(times.get(name), 1)] if bench else []
        row += _drift_cells(name, against.get(name)) if drift else []
        for result in evals:
            found = next((accuracy for accuracy in result.results if accuracy.artifact == name), None)
            row += [number(found.ap.get(setting) if found else None, 4) for setting in result.results[0].ap]
        rows.append(tuple(row))
    return Table(tuple(header), tuple(rows), tuple(notes))


def _drift_cells(artifact: str, comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return ["reference" if artifact == str(REFERENCE) else "-", "", "", "", ""]
    faces, worst = comparison.detections, worst_output(comparison)
    return [
        number(faces.ap["0.5"], 4),
        str(faces.missed),
        str(faces.invented),
        number(faces.iou_mean, 3),
        number(worst.sqnr_db if worst else None, 1),
    ]


def by_size(drift: DriftResult) -> Table:
    """Matched, missed and invented faces by size."""
    bands = drift.comparisons[0].detections.by_size
    header = ("artifact", "against", *(f"{band(b.from_px, b.to_px)}: matched / missed / invented" for b in bands))
    rows = tuple(
        (
            comparison.artifact,
            comparison.reference,
            *(f"{b.matched} / {b.missed} / {b.invented}" for b in comparison.detections.by_size),
        )
        for comparison in drift.comparisons
    )
    return Table(header, rows, ("Size: the shorter side of the face in pixels of the network's input.",))


def recall(result: EvalResult) -> Table:
    """Share of annotated faces found, by size."""
    header, *rows = recall_rows(result, "artifact")
    note = "Share of the annotated faces that are found, by shorter side in input pixels (number of faces)."
    return Table(header, tuple(rows), (note,))


def speed(bench: BenchResult) -> Table:
    """Times and costs of every runner."""
    header = ("", "p50 ms", "95 % interval", "p90 ms", "p99 ms", "frames/s", "to FP32", "start ms", "MB", "drift %")
    rows = []
    for runner in bench.runners:
        times, memory = runner.latency, runner.cold_start.peak_memory_bytes
        rows.append(
            (
                runner.name,
                number(times.p50_ms, 2),
                f"{times.p50_low_ms:.2f} to {times.p50_high_ms:.2f}",
                number(times.p90_ms, 2),
                number(times.p99_ms, 2),
                number(times.frames_per_second, 1),
                f"× {number(runner.to_reference.value, 2)}" if runner.to_reference else "-",
                number(runner.cold_start.first_faces_ms, 0),
                "-" if memory is None else f"{memory / 1e6:.0f}",
                number(runner.agreement.drift_percent if runner.agreement else None, 2),
            )
        )
    notes = (
        "p50: median from frame to faces, with its 95 % confidence interval; p90, p99: nine, ninety-nine of a hundred "
        "frames are faster. To FP32: median over that of ONNX Runtime FP32. Start: from a fresh process to the first "
        "faces. MB: most memory of the whole process. Drift: 100 % less the mean IoU of every box with its match in "
        "ONNX Runtime FP32's, 0 for a box without one.",
    )
    return Table(header, tuple(rows), notes)


def bench_conditions(bench: BenchResult) -> str:
    """In one sentence: how it was measured."""
    use, frames = bench.machine_use, bench.frames
    return (
        f"{bench.run.name.capitalize()} run of {bench.run.rounds} rounds on core "
        f"{', '.join(map(str, bench.machine.cores))} of {bench.machine.machine_cores}, {frames.count} frames of "
        f"{frames.width}×{frames.height}. Of the measured cores' time, other programs took "
        f"{percent(use.others_share)} and a hypervisor {percent(use.stolen_share)}."
    )


def meshes(rows: Sequence[MeshDrift], costs: Sequence[MeshCost]) -> Table:
    """Distances of the artifacts' meshes from FP32's, and what a mesh costs where that was measured."""
    ratios = {str(cost.artifact): cost.ratio.value for cost in costs}
    header = ("artifact", "faces", "mean, %", "median, %", "worst, %", "pose, °", *(("time",) if costs else ()))
    cells = []
    for row in rows:
        figures = (
            number(row.mean_percent_of_size, 3),
            number(row.median_percent_of_size, 3),
            number(row.worst_percent_of_size, 2),
            number(row.pose_difference_degrees, 2),
        )
        time = (f"× {number(ratios.get(row.artifact), 3)}",) if costs else ()
        cells.append((row.artifact, str(row.faces), *figures, *time))
    note = "Mean distance of a face's vertices in the picture, % of √(box area); pose: mean difference of its angles."
    timed = ("Time: a frame with meshes over the same without.",) if costs else ()
    return Table(header, tuple(cells), (note, *timed))


def identity(floor: IdentityFloor) -> Table:
    """Cosines of FP32's and the artifacts' crops, and TAR at the FARs that the pairs carry."""
    fars = [tar.far for tar in floor.comparisons[0].tar]
    percentiles = ("1 %", "5 %", "median")
    header = (
        "artifact",
        "faces",
        *percentiles,
        *(f"mirrored, {percentile}" for percentile in percentiles),
        *(f"TAR at {far:g}" for far in fars),
        *(f"mirrored, TAR at {far:g}" for far in fars),
    )
    rows = tuple(
        (
            row.artifact,
            str(row.same.pairs),
            *low_cells(row.same),
            *low_cells(row.mirrored),
            *map(tar_cell, row.tar),
            *map(tar_cell, row.tar_mirrored),
        )
        for row in floor.comparisons
    )
    own, others = floor.comparisons[0].reference_mirrored, floor.comparisons[0].impostors
    note = (
        "Cosine of the recogniser's embeddings of a face aligned by FP32's landmarks and by the artifact's, or by the "
        f"artifact's and mirrored. FP32's own crop and its mirror image: {' / '.join(low_cells(own))}. Impostors are "
        f"the {others.pairs} pairs of faces in one picture: median {number(others.p50, 3)}, 99 % "
        f"{number(others.p99, 3)}. Faces from score {floor.least_score:g} and {floor.least_px:g} px on."
    )
    return Table(header, rows, (note, recogniser_sentence(floor.embedder).capitalize() + "."))


def provenance(
    origin: BundleOrigin | None, drift: DriftResult | None, evals: Sequence[EvalResult], bench: BenchResult | None
) -> Iterator[tuple[str, str]]:
    """Term and text: the bundle, how it was made, the pictures, and where it was measured."""
    if origin:
        yield "bundle", f"sha256 {origin.digest}"
    for key, value in origin.provenance.items() if origin else ():
        if key == "licences":  # the bill of materials has them
            continue
        parts = (f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else [str(value)]
        yield str(key), ", ".join(parts)
    if drift:
        yield "drift", _images(drift.images)
    for result in evals:
        yield set_name(result), _images(result.images)
    if bench:
        yield "bench", f"{bench.frames.count} frames, sha256 {bench.frames.digest[:16]}"
    environments: list[Mapping[str, str]] = [one.environment for one in (drift, *evals, bench) if one is not None]
    for environment in {tuple(one.items()): one for one in environments}.values():
        yield "measured on", ", ".join(f"{key} {value}" for key, value in environment.items())


def _images(images: ImageSet) -> str:
    skipped = f", {len(images.skipped)} skipped" if images.skipped else ""
    return f"{images.count} pictures, sha256 {images.digest[:16]}{skipped}"
