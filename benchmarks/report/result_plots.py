"""The report's plots: which figures of which results go into which picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..drift.run import REFERENCE
from .plots import Axis, Series, bar_plot, line_plot, scatter_plot

HIGHEST_DB = 60.0
"""Where the drift plots end: above it, two tensors are the same for every purpose."""


def drift_plots(drift: Mapping[str, Any] | None, colours: Mapping[str, int]) -> Iterator[str]:
    """A bar plot a head, and a line plot of the layers if drift looked at them."""
    if drift is None:
        return
    against = to_reference(drift)
    if not against:
        return
    for head in dict.fromkeys(t["head"] for t in against[0]["tensors"]):
        strides = sorted({t["stride"] for t in against[0]["tensors"]})
        series = []
        for comparison in against:
            tensors = [t for t in comparison["tensors"] if t["head"] == head and t["anchors"] == "candidates"]
            points = [(float(strides.index(t["stride"])), t["sqnr_db"]) for t in tensors if t["sqnr_db"] is not None]
            series.append(Series(comparison["artifact"], tuple(points), _colour(colours, comparison["artifact"])))
        title = f"Drift of {head} by stride (higher is nearer to FP32)"
        yield bar_plot(title, [f"stride {s}" for s in strides], Axis("SQNR, dB", 0.0, HIGHEST_DB), series)
    if layers := drift.get("layers"):
        longest = max(len(row["layers"]) for row in layers)
        series = [
            Series(
                f"{row['artifact']}, {name}",
                tuple((float(index), figure[key]) for index, figure in enumerate(row["layers"])),
                _colour(colours, row["artifact"]),
                dashed=key == "sqnr_db",
            )
            for row in layers
            if "int8" in row["artifact"]
            for name, key in (("born", "born_sqnr_db"), ("arrived", "sqnr_db"))
        ]
        if series:
            x = Axis("layer, from the picture to the outputs", 0.0, longest - 1.0)
            yield line_plot("Where the difference is born", x, Axis("SQNR, dB", 0.0, HIGHEST_DB), series)


def eval_plots(evals: Sequence[Mapping[str, Any]], colours: Mapping[str, int]) -> Iterator[str]:
    """Precision against recall, one plot a setting."""
    for result in evals:
        for setting in result["results"][0]["curves"]:
            series = [
                Series(
                    row["artifact"],
                    tuple(zip(row["curves"][setting]["recall"], row["curves"][setting]["precision"], strict=True)),
                    _colour(colours, row["artifact"]),
                    dashed="int8" in row["artifact"],
                )
                for row in result["results"]
            ]
            title = f"Precision and recall: {set_name(result)}, {setting}"
            yield line_plot(title, Axis("recall", 0.0, 1.0), Axis("precision", 0.0, 1.0), series)


def latency_plot(
    evals: Sequence[Mapping[str, Any]], times: Mapping[str, float], colours: Mapping[str, int]
) -> Iterator[str]:
    """Latency against AP, on the first set's last setting: hard, of WIDER FACE."""
    if not times or not evals:
        return
    setting = list(evals[0]["results"][0]["ap"])[-1]
    points = [
        Series(row["artifact"], ((times[row["artifact"]], row["ap"][setting]),), _colour(colours, row["artifact"]))
        for row in evals[0]["results"]
        if row["artifact"] in times and row["ap"][setting] is not None
    ]
    if points:
        aps = [series.points[0][1] for series in points]
        x = Axis("milliseconds a frame", 0.0, 1.1 * max(series.points[0][0] for series in points))
        y = Axis(f"AP, {setting}", max(0.0, min(aps) - 0.01), min(1.0, max(aps) + 0.01))
        yield scatter_plot(f"Latency against AP: {set_name(evals[0])}", x, y, points)


def to_reference(drift: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The comparisons with FP32 on ONNX Runtime."""
    return [row for row in drift["comparisons"] if row["reference"] == REFERENCE]


def set_name(result: Mapping[str, Any]) -> str:
    """The set with its scale, for people."""
    note = f", {result['set']['note']}" if result["set"]["note"] else ""
    return f"{result['set']['name']} ({result['scale']}{note})"


def _colour(colours: Mapping[str, int], artifact: str) -> int:
    """An artifact has one colour in all plots; what is in no bundle, a checkpoint for instance, has the last."""
    return colours.get(artifact, len(colours))
