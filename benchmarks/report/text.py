"""Results as plain text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..gates.gate import Outcome, failures


def drift_text(result: Mapping[str, Any]) -> str:
    """A row for each comparison on the detection floor, then the outputs of each artifact by stride."""
    images = result["images"]
    lines = [f"drift on {images['count']} pictures, {result['input']}, faces from score {result['score_threshold']:g}"]
    lines += [f"skipped {skipped['name']}: {skipped['reason']}" for skipped in images["skipped"]]
    header = ("artifact", "against", "AP", "matched", "missed", "invented", "IoU", "score", "landmark", "worst output")
    rows = []
    for comparison in result["comparisons"]:
        d = comparison["detections"]
        worst = min(
            (t for t in comparison["tensors"] if t["anchors"] == "candidates" and t["sqnr_db"] is not None),
            key=lambda t: t["sqnr_db"],
            default=None,
        )
        rows.append(
            (
                comparison["artifact"],
                comparison["reference"],
                number(d["ap_0.5"], 4),
                str(d["matched"]),
                str(d["missed"]),
                str(d["invented"]),
                number(d["iou_mean"], 3),
                number(d["score_shift_absolute"], 3),
                number(d["landmark_shift_mean"], 3),
                f"{worst['output']} {worst['sqnr_db']:.1f} dB" if worst else "-",
            )
        )
    lines += table([header, *rows])
    outputs = [t["output"] for t in result["comparisons"][0]["tensors"] if t["anchors"] == "candidates"]
    rows = []
    for comparison in result["comparisons"]:
        values = [number(t["sqnr_db"], 1) for t in comparison["tensors"] if t["anchors"] == "candidates"]
        rows.append((comparison["artifact"], comparison["reference"], *values))
    lines += ["", "SQNR in dB where faces may be", *table([("artifact", "against", *outputs), *rows])]
    if result.get("layers"):
        lines += ["", *_layers(result["layers"])]
    return "\n".join(lines)


def eval_text(result: Mapping[str, Any]) -> str:
    """A row for each artifact; then recall by face size."""
    described, images = result["set"], result["images"]
    note = f" ({described['note']})" if described["note"] else ""
    least = f", faces from {described['least_face']:g} px" if described["least_face"] else ""
    lines = [
        f"{described['name']}{note}: {images['count']} pictures, {described['protocol']}, scale {result['scale']}, "
        f"input {result['input']}{least}"
    ]
    lines += [result["predictions"]] if result.get("predictions") else []
    lines += [f"skipped {skipped['name']}: {skipped['reason']}" for skipped in images["skipped"]]
    first = result["results"][0]
    settings = list(first["ap"])
    header = ["artifact", *(f"AP {s}" for s in settings), "recall", "NME"]
    rows = [
        (
            row["artifact"],
            *(number(row["ap"][s], 4) for s in settings),
            number(row["recall"], 4),
            number(row["landmarks"]["nme_mean"], 4) if row["landmarks"] else "-",
        )
        for row in result["results"]
    ]
    lines += table([header, *rows])
    bands = [b for b in first["recall_by_size"] if b["faces"]]
    header = ["recall by size", *(f"{band(b)} ({b['faces']})" for b in bands)]
    rows = [
        (row["artifact"], *(f"{b['found'] / b['faces']:.3f}" for b in row["recall_by_size"] if b["faces"]))
        for row in result["results"]
    ]
    return "\n".join([*lines, "", *table([header, *rows])])


def compare_text(result: Mapping[str, Any]) -> str:
    """A row for each figure that both have."""
    rows = [
        (
            change["artifact"],
            change["protocol"],
            number(change["a"], 4),
            number(change["b"], 4),
            "-" if change["a"] is None else f"{100 * (change['b'] - change['a']):+.2f}",
            "-" if change["low"] is None else f"{100 * change['low']:+.2f} to {100 * change['high']:+.2f}",
            change["verdict"],
        )
        for change in result["changes"]
    ]
    header = ("artifact", "figure", "a", "b", "points", "95 % interval", "b is")
    return "\n".join([f"{result['images']['count']} pictures in both", *result["notes"], *table([header, *rows])])


def gate_text(outcomes: Sequence[Outcome]) -> str:
    """Every failure in a sentence, then the count."""
    failed = failures(outcomes)
    judged = sum(outcome.passed is not None for outcome in outcomes)
    lines = [f"FAILED {outcome.rule.name}: {outcome.sentence}" for outcome in failed]
    return "\n".join([*lines, f"gate: {judged - len(failed)} of {judged} checks passed"])


def number(value: float | None, digits: int) -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def band(fields: Mapping[str, Any]) -> str:
    """For instance `16-32 px`."""
    return f"{fields['from']:g}+ px" if fields["to"] is None else f"{fields['from']:g}-{fields['to']:g} px"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines; the first column to the left, the others to the right unless they hold words."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    wordy = {0} | {c for c in range(len(rows[0])) if any(row[c][:1].isalpha() for row in rows[1:])}
    return ["  ".join(_cells(row, widths, wordy)).rstrip() for row in rows]


def _cells(row: Sequence[str], widths: Sequence[int], wordy: set[int]) -> Iterator[str]:
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if column in wordy else cell.rjust(width)


def _layers(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row a layer, two columns an artifact."""
    header = ["layer", "type"]
    for layers in results:
        header += [f"{layers['artifact']}: born", "arrived"]
    rows = []
    for index, layer in enumerate(results[0]["layers"]):
        figures = [layers["layers"][index] for layers in results]
        pairs = [number(figure[key], 1) for figure in figures for key in ("born_sqnr_db", "sqnr_db")]
        rows.append((layer["layer"], layer["type"], *pairs))
    most = [f"{layers['artifact']}: most is born in {layers['born_in']}" for layers in results]
    return ["SQNR in dB by layer: what is born in it, and what has arrived there", *table([header, *rows]), *most]
