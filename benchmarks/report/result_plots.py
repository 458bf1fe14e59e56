"""The report's plots: which figures of which results go into which plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from retinaface_edge.runtime.artifact import Precision

from ..accuracy.result import EvalResult
from ..drift.result import Comparison, DriftResult
from ..inference.network_under_test import REFERENCE
from ..latency.result import BenchResult
from .plots import Axis, Bar, Series, bar_plot, horizontal_bars, line_plot, scatter_plot
from .text import candidates

HIGHEST_DB = 60.0
"""Where the drift plots end: above it, two tensors are the same for every purpose."""
PHASES = ("preprocessing", "network", "postprocessing")

Colours = Mapping[str, int]
"""The number of an artifact's colour, the same in all plots, by its name."""


def drift_plots(drift: DriftResult, colours: Colours) -> Iterator[str]:
    """A bar plot per head, and a line plot of the layers if drift looked at them."""
    against = to_reference(drift)
    if not against:
        return
    tensors = [tensor for comparison in against for tensor in candidates(comparison)]
    strides = sorted({tensor.stride for tensor in tensors})
    for head in dict.fromkeys(tensor.head for tensor in tensors):
        series = []
        for comparison in against:
            points = tuple(
                (float(strides.index(tensor.stride)), tensor.sqnr_db)
                for tensor in candidates(comparison)
                if tensor.head == head and tensor.sqnr_db is not None
            )
            series.append(Series(comparison.artifact, points, _colour(colours, comparison.artifact)))
        title = f"Drift of {head} by stride: SQNR against ONNX Runtime FP32 where faces may be (higher is nearer)"
        yield bar_plot(title, [f"stride {stride}" for stride in strides], Axis("SQNR, dB", 0.0, HIGHEST_DB), series)
    yield from _layer_plot(drift, colours)


def _layer_plot(drift: DriftResult, colours: Colours) -> Iterator[str]:
    int8 = [layers for layers in drift.layers if layers.artifact.endswith(Precision.INT8.value)]
    if not int8:
        return
    series = []
    for layers in int8:
        colour = _colour(colours, layers.artifact)
        introduced = tuple((float(i), layer.introduced_sqnr_db) for i, layer in enumerate(layers.layers))
        accumulated = tuple((float(i), layer.accumulated_sqnr_db) for i, layer in enumerate(layers.layers))
        series.append(Series(f"{layers.artifact}, introduced by the layer", introduced, colour))
        series.append(Series(f"{layers.artifact}, accumulated up to it", accumulated, colour, dashed=True))
    x = Axis("layer, from the picture to the outputs", 0.0, max(len(layers.layers) for layers in int8) - 1.0)
    title = "Where the difference is introduced: SQNR of each layer against FP32"
    yield line_plot(title, x, Axis("SQNR, dB", 0.0, HIGHEST_DB), series)


def eval_plots(evals: Sequence[EvalResult], colours: Colours) -> Iterator[str]:
    """Precision against recall, one plot per setting."""
    for result in evals:
        for setting in result.results[0].curves:
            series = [
                Series(
                    row.artifact,
                    tuple(zip(row.curves[setting].recall, row.curves[setting].precision, strict=True)),
                    _colour(colours, row.artifact),
                    dashed=row.artifact.endswith(Precision.INT8.value),
                )
                for row in result.results
                if setting in row.curves
            ]
            title = f"Precision and recall: {set_name(result)}, {setting}, {result.images.count} pictures"
            yield line_plot(title, Axis("recall", 0.0, 1.0), Axis("precision", 0.0, 1.0), series)


def latency_plots(bench: BenchResult, evals: Sequence[EvalResult], colours: Colours) -> Iterator[str]:
    """Every runner's milliseconds by phase, and latency against AP on the first set's last setting (WIDER's hard)."""
    if not bench.runners:
        return
    cores = "one core" if len(bench.machine.cores) == 1 else f"{len(bench.machine.cores)} cores"
    width, height = bench.frames.width, bench.frames.height
    bars = [
        Bar(
            runner.name,
            (runner.latency.pre_ms, runner.latency.inference_ms, runner.latency.post_ms),
            f"{runner.latency.p50_ms:.1f} ms",
        )
        for runner in bench.runners
    ]
    title = f"Latency from frame to faces: {width}×{height} frames on {cores}, medians of the phases and of the whole"
    yield horizontal_bars(title, "ms", PHASES, bars)
    if not evals or not evals[0].results[0].ap:
        return
    first = evals[0]
    setting = list(first.results[0].ap)[-1]
    times = {runner.name: runner.latency.p50_ms for runner in bench.runners}
    points = [
        Series(row.artifact, ((times[row.artifact], ap),), _colour(colours, row.artifact))
        for row in first.results
        if row.artifact in times and (ap := row.ap.get(setting)) is not None
    ]
    if points:
        aps = [series.points[0][1] for series in points]
        x = Axis("milliseconds per frame, median", 0.0, 1.1 * max(series.points[0][0] for series in points))
        y = Axis(f"AP, {setting}", max(0.0, min(aps) - 0.01), min(1.0, max(aps) + 0.01))
        yield scatter_plot(f"Latency against AP: {set_name(first)} (up and left is better)", x, y, points)


def to_reference(drift: DriftResult) -> list[Comparison]:
    """The comparisons with FP32 on ONNX Runtime."""
    return [comparison for comparison in drift.comparisons if comparison.reference == str(REFERENCE)]


def set_name(result: EvalResult) -> str:
    """The set with its scale, for people."""
    note = f", {result.dataset.note}" if result.dataset.note else ""
    return f"{result.dataset.name} ({result.scale}{note})"


def _colour(colours: Colours, artifact: str) -> int:
    """An artifact has one colour in all plots; what is in no bundle, a checkpoint for instance, has the last."""
    return colours.get(artifact, len(colours))
