"""Every figure of a drift, eval or bench result as one flat list: what gates judge and reports tabulate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

TENSORS, DETECTIONS, LAYERS, EVAL, BENCH = "tensors", "detections", "layers", "eval", "bench"
TENSOR_FIGURES = ("sqnr_db", "cosine", "gain", "largest_difference")
DETECTION_FIGURES = (
    "ap_0.02",
    "ap_0.5",
    "iou_mean",
    "iou_p05",
    "score_shift_absolute",
    "score_shift_largest",
    "landmark_shift_mean",
    "landmark_shift_p95",
)
LOST_FIGURES = ("missed", "invented")
LAYER_FIGURES = ("born_sqnr_db", "sqnr_db")
EVAL_FIGURES = ("ap", "ap_drop_points", "recall", "nme")
MILLISECONDS = ("p50_ms", "p90_ms", "p99_ms")
RATIO_TO_BASELINE = "ratio_to_baseline"
RATIOS = {
    "ratio": ("p50_ms", "p50_ms"),
    "ratio_to_network": ("p50_ms", "inference_ms"),
    "cpu_ratio": ("cpu_ms", "cpu_ms"),
    "cpu_ratio_to_network": ("cpu_ms", "cpu_inference_ms"),
}
"""Medians of a whole call against another's, or against another's network alone; by the clock or in processor time."""
MESH_FIGURES = ("mesh_ratio", "mesh_branch_us")
"""A frame with meshes against the same without, and microseconds of a batch through the dense branch's network."""
BENCH_FIGURES = (*MILLISECONDS, *RATIOS, RATIO_TO_BASELINE, *MESH_FIGURES)
KNOWN = {
    TENSORS: (*TENSOR_FIGURES, *(f"{name}_all" for name in TENSOR_FIGURES)),
    DETECTIONS: (*DETECTION_FIGURES, *LOST_FIGURES),
    LAYERS: LAYER_FIGURES,
    EVAL: EVAL_FIGURES,
    BENCH: BENCH_FIGURES,
}


@dataclass(frozen=True)
class Figure:
    """One figure: on which floor, its name, of which artifact against which reference, and of what in it.

    `of` is an output, a layer, or a protocol. `value` is None where there was nothing to measure. `worst_image` is
    where it is worst, if that is known.
    """

    floor: str
    name: str
    artifact: str
    reference: str
    of: str
    value: float | None
    worst_image: str = ""


def figures_of(result: Mapping[str, Any], least_size: float = 0.0, least_score: float = 0.0) -> Iterator[Figure]:
    """The figures of a result. Missed and invented faces are counted from a size (input pixels) and score on."""
    if result["kind"] == "drift":
        for comparison in result["comparisons"]:
            yield from _tensors(comparison)
            yield from _detections(comparison, least_size, least_score)
        for layers in result.get("layers", ()):
            yield from _layers(layers)
    elif result["kind"] == "bench":
        yield from _bench(result)
    else:
        yield from _eval(result)


def _tensors(comparison: Mapping[str, Any]) -> Iterator[Figure]:
    for row in comparison["tensors"]:
        for name in TENSOR_FIGURES:
            suffix = "" if row["anchors"] == "candidates" else "_all"
            yield Figure(
                TENSORS,
                name + suffix,
                comparison["artifact"],
                comparison["reference"],
                row["output"],
                row[name],
                row["worst_image"],
            )


def _detections(comparison: Mapping[str, Any], least_size: float, least_score: float) -> Iterator[Figure]:
    common = (comparison["artifact"], comparison["reference"], "faces")
    worst = {
        "iou_mean": _extreme(comparison, "iou_mean", min),
        "iou_p05": _extreme(comparison, "iou_mean", min),
        "landmark_shift_mean": _extreme(comparison, "landmark_shift_mean", max),
        "landmark_shift_p95": _extreme(comparison, "landmark_shift_mean", max),
    }
    strongest = max((*comparison["missed"], *comparison["invented"]), key=lambda face: face["score"], default=None)
    for name in DETECTION_FIGURES:
        fallback = strongest["image"] if strongest else ""
        yield Figure(DETECTIONS, name, *common, comparison["detections"][name], worst.get(name, fallback))
    for name in LOST_FIGURES:
        lost = [f for f in comparison[name] if f["size"] >= least_size and f["score"] >= least_score]
        image = max(lost, key=lambda face: face["score"])["image"] if lost else ""
        yield Figure(DETECTIONS, name, *common, float(len(lost)), image)


def _extreme(comparison: Mapping[str, Any], name: str, choose: Any) -> str:
    rows = [row for row in comparison["per_image"] if row[name] is not None]
    return str(choose(rows, key=lambda row: row[name])["image"]) if rows else ""


def _layers(layers: Mapping[str, Any]) -> Iterator[Figure]:
    for row in layers["layers"]:
        for name in LAYER_FIGURES:
            yield Figure(LAYERS, name, layers["artifact"], layers["reference"], row["layer"], row[name])


def _eval(result: Mapping[str, Any]) -> Iterator[Figure]:
    reference = result["reference"]
    first = {row["artifact"]: row for row in result["results"]}.get(reference)
    for row in result["results"]:
        name = row["artifact"]
        for protocol, ap in row["ap"].items():
            yield Figure(EVAL, "ap", name, reference, protocol, ap)
            if first is not None and name != reference and ap is not None:
                drop = 100.0 * (first["ap"][protocol] - ap)
                yield Figure(EVAL, "ap_drop_points", name, reference, protocol, drop, row.get("worst_image", ""))
        yield Figure(EVAL, "recall", name, reference, "faces", row["recall"])
        if row.get("landmarks"):
            yield Figure(EVAL, "nme", name, reference, "landmarks", row["landmarks"]["nme_mean"])


def _bench(result: Mapping[str, Any]) -> Iterator[Figure]:
    """Whole calls in milliseconds, and their medians against others'; what meshes cost."""
    for row in result["results"]:
        for name in MILLISECONDS:
            yield Figure(BENCH, name, row["name"], "", "whole call", row[name])
        for other in result["results"]:
            if other is not row:
                for name, (above, below) in RATIOS.items():
                    yield Figure(BENCH, name, row["name"], other["name"], "whole call", row[above] / other[below])
    for row in result.get("meshes", ()):
        for name, value in zip(MESH_FIGURES, (row["ratio"][0], row["branch_microseconds"]), strict=True):
            yield Figure(BENCH, name, row["name"], "", f"a frame, faces: {row['faces']}", value)
