"""Every figure of a drift, eval or bench result as one flat list: what gates judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from ..accuracy.result import EvalResult
from ..drift.result import Comparison, DetectionDrift, DriftedImage, DriftResult, LayerComparison, LayerDrift
from ..identity.result import IdentityDrift, VerificationFigures, VerificationResult
from ..identity.verification import FARS, TarAtFar
from ..latency.result import BenchResult, Latency

JudgedResult = DriftResult | EvalResult | VerificationResult | BenchResult
"""What a gate can judge."""


class Floor(str, Enum):
    """Where a figure is from: outputs, faces, layers, identity of `drift`; `eval`; `eval --pairs`; `bench`; `cost`."""

    TENSORS = "tensors"
    DETECTIONS = "detections"
    LAYERS = "layers"
    IDENTITY = "identity"
    EVAL = "eval"
    VERIFICATION = "verification"
    BENCH = "bench"
    COST = "cost"

    def __str__(self) -> str:
        return self.value


TENSOR_FIGURES = ("sqnr_db", "cosine", "gain", "largest_difference")
"""At the anchors where faces may be; with `_all` added, at all anchors."""
DETECTION_FIGURES: Mapping[str, Callable[[DetectionDrift], float | None]] = {
    "ap_0.02": lambda drift: drift.ap["0.02"],
    "ap_0.5": lambda drift: drift.ap["0.5"],
    "iou_mean": lambda drift: drift.iou_mean,
    "iou_p05": lambda drift: drift.iou_p05,
    "score_shift_absolute": lambda drift: drift.score_shift_absolute_mean,
    "score_shift_largest": lambda drift: drift.score_shift_absolute_largest,
    "landmark_shift_mean": lambda drift: drift.landmark_shift_mean_share,
    "landmark_shift_p95": lambda drift: drift.landmark_shift_p95_share,
}
"""`ap_0.02` is average precision with the reference's faces from score 0.02 on as the truth."""
MISSED, INVENTED = "missed", "invented"
LOST_FIGURES = (MISSED, INVENTED)
LAYER_FIGURES: Mapping[str, Callable[[LayerDrift], float]] = {
    "introduced_sqnr_db": lambda layer: layer.introduced_sqnr_db,
    "accumulated_sqnr_db": lambda layer: layer.accumulated_sqnr_db,
}
FORMER_LAYER_FIGURES = {"born_sqnr_db": "introduced_sqnr_db", "sqnr_db": "accumulated_sqnr_db"}
"""Names that gates of version 0.1 have."""
TARS = tuple(f"tar_{far:g}" for far in FARS)
"""`tar_0.001` is TAR at a FAR of 0.001."""
IDENTITY_FIGURES: Mapping[str, Callable[[IdentityDrift], float | None]] = {
    "cosine_p01": lambda drift: drift.same.p01,
    "cosine_p05": lambda drift: drift.same.p05,
    "cosine_p50": lambda drift: drift.same.p50,
    "mirrored_p01": lambda drift: drift.mirrored.p01,
    "mirrored_p50": lambda drift: drift.mirrored.p50,
}
"""Percentiles of the cosines of FP32's and the artifact's crop of a face, and of its own and the other mirrored."""
EVAL_FIGURES = ("ap", "ap_drop_points", "recall", "nme")
MILLISECONDS: Mapping[str, Callable[[Latency], float]] = {
    "p50_ms": lambda latency: latency.p50_ms,
    "p90_ms": lambda latency: latency.p90_ms,
    "p99_ms": lambda latency: latency.p99_ms,
}
RATIOS: Mapping[str, tuple[Callable[[Latency], float], Callable[[Latency], float]]] = {
    "ratio": (lambda latency: latency.p50_ms, lambda other: other.p50_ms),
    "ratio_to_network": (lambda latency: latency.p50_ms, lambda other: other.inference_ms),
    "cpu_ratio": (lambda latency: latency.cpu_ms, lambda other: other.cpu_ms),
    "cpu_ratio_to_network": (lambda latency: latency.cpu_ms, lambda other: other.cpu_inference_ms),
}
"""Medians of a whole call against another's, or against another's network alone; by the clock or in processor time."""
RATIO_TO_BASELINE = "ratio_to_baseline"
MESH_RATIO, MESH_BRANCH_US = "mesh_ratio", "mesh_branch_us"
"""A frame with meshes against the same without, and microseconds of a batch through the dense branch's network."""
COST_RATIOS = tuple(f"{figure}_ratio" for figure in ("instructions", "cycles", "l1_misses", "l2_misses", "dram_bytes"))
KNOWN: Mapping[Floor, tuple[str, ...]] = {
    Floor.TENSORS: (*TENSOR_FIGURES, *(f"{name}_all" for name in TENSOR_FIGURES)),
    Floor.DETECTIONS: (*DETECTION_FIGURES, *LOST_FIGURES),
    Floor.LAYERS: (*LAYER_FIGURES, *FORMER_LAYER_FIGURES),
    Floor.IDENTITY: (*IDENTITY_FIGURES, *TARS, *(f"mirrored_{name}" for name in TARS)),
    Floor.EVAL: EVAL_FIGURES,
    Floor.VERIFICATION: ("accuracy", *TARS),
    Floor.BENCH: (*MILLISECONDS, *RATIOS, RATIO_TO_BASELINE, MESH_RATIO, MESH_BRANCH_US),
    Floor.COST: COST_RATIOS,
}


@dataclass(frozen=True)
class Figure:
    """One figure: where it is from, its name, of which artifact against which reference, and of what in it.

    `of` is an output, a layer, or a protocol. `value` is None where there was nothing to measure. `worst_image` is
    where it is worst, if that is known.
    """

    floor: Floor
    name: str
    artifact: str
    reference: str
    of: str
    value: float | None
    worst_image: str = ""


def figures_of(result: JudgedResult, least_size: float = 0.0, least_score: float = 0.0) -> Iterator[Figure]:
    """The figures of a result. Missed and invented faces are counted from a size (input pixels) and score on."""
    if isinstance(result, DriftResult):
        for comparison in result.comparisons:
            yield from _tensors(comparison)
            yield from _detections(comparison, least_size, least_score)
        for layers in result.layers:
            yield from _layers(layers)
        for identity in result.identity.comparisons if result.identity else ():
            yield from _identity(identity)
    elif isinstance(result, EvalResult):
        yield from _eval(result)
    elif isinstance(result, VerificationResult):
        for row in result.results:
            yield from _verification(row)
    else:
        yield from _bench(result)


def _tensors(comparison: Comparison) -> Iterator[Figure]:
    common = (comparison.artifact, comparison.reference)
    for row in comparison.tensors:
        values = (row.sqnr_db, row.cosine, row.gain, row.largest_difference)
        suffix = "" if row.anchors == "candidates" else "_all"
        for name, value in zip(TENSOR_FIGURES, values, strict=True):
            yield Figure(Floor.TENSORS, name + suffix, *common, row.output, value, row.worst_image)


def _detections(comparison: Comparison, least_size: float, least_score: float) -> Iterator[Figure]:
    common = (comparison.artifact, comparison.reference, "faces")
    least_iou = _extreme(comparison.per_image, lambda image: image.iou_mean, min)
    most_shift = _extreme(comparison.per_image, lambda image: image.landmark_shift_mean_share, max)
    worst = {"iou": least_iou, "landmark": most_shift}
    strongest = max((*comparison.missed, *comparison.invented), key=lambda face: face.score, default=None)
    for name, value in DETECTION_FIGURES.items():
        image = worst.get(name.split("_")[0], strongest.image if strongest else "")
        yield Figure(Floor.DETECTIONS, name, *common, value(comparison.detections), image)
    for name, faces in ((MISSED, comparison.missed), (INVENTED, comparison.invented)):
        lost = [face for face in faces if face.size_px >= least_size and face.score >= least_score]
        image = max(lost, key=lambda face: face.score).image if lost else ""
        yield Figure(Floor.DETECTIONS, name, *common, float(len(lost)), image)


def _extreme(
    images: tuple[DriftedImage, ...],
    value: Callable[[DriftedImage], float | None],
    choose: Callable[[list[tuple[float, str]]], tuple[float, str]],
) -> str:
    rows = [(found, image.image) for image in images if (found := value(image)) is not None]
    return choose(rows)[1] if rows else ""


def _layers(layers: LayerComparison) -> Iterator[Figure]:
    for row in layers.layers:
        for name, value in LAYER_FIGURES.items():
            yield Figure(Floor.LAYERS, name, layers.artifact, layers.reference, row.layer, value(row))


def _identity(drift: IdentityDrift) -> Iterator[Figure]:
    common = (drift.artifact, drift.reference, "faces")
    worst = drift.worst[0].image if drift.worst else ""
    for name, value in IDENTITY_FIGURES.items():
        yield Figure(Floor.IDENTITY, name, *common, value(drift), worst)
    for prefix, tars in (("", drift.tar), ("mirrored_", drift.tar_mirrored)):
        for name, found in _tars(tars).items():
            yield Figure(Floor.IDENTITY, prefix + name, *common, found, worst)


def _verification(row: VerificationFigures) -> Iterator[Figure]:
    common = (row.artifact, row.artifact, "pairs")
    yield Figure(Floor.VERIFICATION, "accuracy", *common, row.accuracy.mean if row.accuracy else None)
    for name, found in _tars(row.tar).items():
        yield Figure(Floor.VERIFICATION, name, *common, found)


def _tars(found: Sequence[TarAtFar]) -> dict[str, float | None]:
    """TAR by name of the figure; None at the FARs that the pairs do not carry."""
    values = {tar.far: tar.tar for tar in found}
    return {name: values.get(far) for name, far in zip(TARS, FARS, strict=True)}


def _eval(result: EvalResult) -> Iterator[Figure]:
    reference = result.reference
    first = next((row for row in result.results if row.artifact == reference), None)
    for row in result.results:
        common = (row.artifact, reference)
        for protocol, ap in row.ap.items():
            yield Figure(Floor.EVAL, "ap", *common, protocol, ap)
            best = first.ap.get(protocol) if first is not None and first is not row else None
            if best is not None and ap is not None:
                yield Figure(Floor.EVAL, "ap_drop_points", *common, protocol, 100.0 * (best - ap), row.worst_image)
        yield Figure(Floor.EVAL, "recall", *common, "faces", row.recall)
        if row.landmarks:
            yield Figure(Floor.EVAL, "nme", *common, "landmarks", row.landmarks.nme_mean)


def _bench(result: BenchResult) -> Iterator[Figure]:
    """Whole calls in milliseconds, and their medians against others'; what meshes cost."""
    for runner in result.runners:
        for name, value in MILLISECONDS.items():
            yield Figure(Floor.BENCH, name, runner.name, "", "whole call", value(runner.latency))
        for other in result.runners:
            if other is not runner:
                for name, (above, below) in RATIOS.items():
                    reference = below(other.latency)
                    ratio = above(runner.latency) / reference if reference else None
                    yield Figure(Floor.BENCH, name, runner.name, other.name, "whole call", ratio)
    for cost in result.meshes:
        for name, figure in ((MESH_RATIO, cost.ratio.value), (MESH_BRANCH_US, cost.branch_us)):
            yield Figure(Floor.BENCH, name, str(cost.artifact), "", f"a frame, faces: {cost.faces}", figure)
