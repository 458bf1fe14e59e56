"""Results as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..accuracy.result import CompareResult, EvalResult
from ..drift.result import Comparison, DriftResult, LayerComparison, TensorDrift
from ..gates.gate import Outcome, failures
from ..results import SkippedImage


def drift_text(result: DriftResult) -> str:
    """A row for each comparison of faces, then the outputs of each artifact by stride, then layers if measured."""
    width, height = result.input_px
    images, threshold = result.images, result.score_threshold
    lines = [f"drift on {images.count} pictures, {width}x{height}, faces from score {threshold:g}"]
    lines += _skipped(images.skipped)
    header = ("artifact", "against", "AP", "matched", "missed", "invented", "IoU", "score", "landmark", "worst output")
    rows = []
    for comparison in result.comparisons:
        faces, worst = comparison.detections, worst_output(comparison)
        rows.append(
            (
                comparison.artifact,
                comparison.reference,
                number(faces.ap["0.5"], 4),
                *(str(count) for count in (faces.matched, faces.missed, faces.invented)),
                number(faces.iou_mean, 3),
                number(faces.score_shift_absolute_mean, 3),
                number(faces.landmark_shift_mean_share, 3),
                f"{worst.output} {number(worst.sqnr_db, 1)} dB" if worst else "-",
            )
        )
    lines += table([header, *rows])
    outputs = [tensor.output for tensor in candidates(result.comparisons[0])]
    rows = []
    for comparison in result.comparisons:
        values = (number(tensor.sqnr_db, 1) for tensor in candidates(comparison))
        rows.append((comparison.artifact, comparison.reference, *values))
    lines += ["", "SQNR in dB where faces may be", *table([("artifact", "against", *outputs), *rows])]
    if result.layers:
        lines += ["", *_layers(result.layers)]
    return "\n".join(lines)


def eval_text(result: EvalResult) -> str:
    """A row for each artifact; then recall by face size."""
    dataset, images = result.dataset, result.images
    note = f" ({dataset.note})" if dataset.note else ""
    least = f", faces from {dataset.least_face_px:g} px" if dataset.least_face_px else ""
    size = "unknown" if result.input_px is None else "{}x{}".format(*result.input_px)
    lines = [
        f"{dataset.name}{note}: {images.count} pictures, {dataset.protocol}, scale {result.scale}, input {size}{least}"
    ]
    lines += [result.predictions] if result.predictions else []
    lines += _skipped(images.skipped)
    settings = list(result.results[0].ap)
    rows = [
        (
            row.artifact,
            *(number(row.ap[setting], 4) for setting in settings),
            number(row.recall, 4),
            number(row.landmarks.nme_mean if row.landmarks else None, 4),
        )
        for row in result.results
    ]
    lines += table([("artifact", *(f"AP {setting}" for setting in settings), "recall", "NME"), *rows])
    return "\n".join([*lines, "", *table(recall_rows(result, "recall by size"))])


def compare_text(result: CompareResult) -> str:
    """A row for each figure that both have."""
    return "\n".join([f"{result.images.count} pictures in both", *result.notes, *table(change_rows(result))])


def change_rows(result: CompareResult) -> list[tuple[str, ...]]:
    """Header and a row for each figure that both have."""
    rows = [
        (
            change.artifact,
            change.protocol,
            number(change.ap_a, 4),
            number(change.ap_b, 4),
            _points(None if change.ap_a is None or change.ap_b is None else change.ap_b - change.ap_a),
            _interval(change.difference_low, change.difference_high),
            str(change.verdict),
        )
        for change in result.changes
    ]
    return [("artifact", "figure", "a", "b", "points", "95 % interval", "b is"), *rows]


def gate_text(outcomes: Sequence[Outcome], shortfalls: Sequence[str] = ()) -> str:
    """Every failure in a sentence, why the rest is no verdict if it is none, then the count."""
    failed = failures(outcomes)
    judged = sum(outcome.passed is not None for outcome in outcomes)
    lines = [f"FAILED {outcome.rule.name}: {outcome.sentence}" for outcome in failed]
    lines += [f"NOT JUDGED {reason}" for reason in shortfalls]
    verdict = f", and {len(shortfalls)} not judged: this gate has not passed" if shortfalls else ""
    return "\n".join([*lines, f"gate: {judged - len(failed)} of {judged} checks passed{verdict}"])


def candidates(comparison: Comparison) -> list[TensorDrift]:
    """The outputs at the anchors where faces may be."""
    return [tensor for tensor in comparison.tensors if tensor.anchors == "candidates"]


def worst_output(comparison: Comparison) -> TensorDrift | None:
    """The output with the least SQNR, None where none has a value."""
    known = [(tensor.sqnr_db, tensor) for tensor in candidates(comparison) if tensor.sqnr_db is not None]
    return min(known, key=lambda pair: pair[0])[1] if known else None


def recall_rows(result: EvalResult, first: str) -> list[tuple[str, ...]]:
    """Header and rows of recall by face size, for the sizes that there are. `first` heads the artifacts."""
    bands = [size for size in result.results[0].recall_by_size if size.faces]
    header = (first, *(f"{band(size.from_px, size.to_px)} ({size.faces})" for size in bands))
    rows = [
        (row.artifact, *(f"{size.found / size.faces:.3f}" for size in row.recall_by_size if size.faces))
        for row in result.results
    ]
    return [header, *rows]


def number(value: float | None, digits: int) -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def band(from_px: float, to_px: float | None) -> str:
    """For instance `16-32 px`."""
    return f"{from_px:g}+ px" if to_px is None else f"{from_px:g}-{to_px:g} px"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines; the first column to the left, the others to the right unless they hold words."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    wordy = {0} | {c for c in range(len(rows[0])) if any(row[c][:1].isalpha() for row in rows[1:])}
    return ["  ".join(_cells(row, widths, wordy)).rstrip() for row in rows]


def _cells(row: Sequence[str], widths: Sequence[int], wordy: set[int]) -> Iterator[str]:
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if column in wordy else cell.rjust(width)


def _skipped(images: Sequence[SkippedImage]) -> list[str]:
    return [f"skipped {image.name}: {image.reason}" for image in images]


def _points(difference: float | None) -> str:
    """A difference of average precisions in points, hundredths of AP."""
    return "-" if difference is None else f"{100 * difference:+.2f}"


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{_points(low)} to {_points(high)}"


def _layers(comparisons: Sequence[LayerComparison]) -> list[str]:
    """One row per layer, two columns per artifact."""
    header = ["layer", "type"]
    for comparison in comparisons:
        header += [f"{comparison.artifact}: introduced", "accumulated"]
    rows = []
    for index, layer in enumerate(comparisons[0].layers):
        row = [layer.layer, layer.type]
        for comparison in comparisons:
            one = comparison.layers[index]
            row += [number(one.introduced_sqnr_db, 1), number(one.accumulated_sqnr_db, 1)]
        rows.append(row)
    most = [f"{one.artifact}: most is introduced in {one.introduced_most_in}" for one in comparisons]
    title = "SQNR in dB by layer: of the error that the layer introduces, and of all that has accumulated up to it"
    return [title, *table([header, *rows]), *most]
