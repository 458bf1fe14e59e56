"""The fastest artifact of this machine whose faces are near enough to FP32's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..inference.network_under_test import MeasurementError
from ..stats.bootstrap import paired_ratio
from .run import REFERENCE, whole_calls
from .runners import ARTIFACT


def pick(result: Mapping[str, Any], most_drift: float) -> tuple[Mapping[str, Any] | None, str]:
    """The row of that artifact, None if every one drifts more, and why.

    `most_drift` is in percent, as `runtime/ops/iou.py` defines it. Raises `MeasurementError` when drift is unknown.
    """
    rows = [row for row in result["results"] if row["kind"] == ARTIFACT]
    clock = "cpu_ms" if len(result["machine"]["cores"]) == 1 else "p50_ms"  # as in `whole_calls`
    known = [row for row in rows if row["drift_percent"] is not None]
    if not known:
        raise MeasurementError(f"drift is measured against {REFERENCE}, which cannot run here; install onnxruntime")
    within = sorted((row for row in known if row["drift_percent"] <= most_drift), key=lambda row: float(row[clock]))
    if not within:
        least = min(known, key=lambda row: float(row["drift_percent"]))
        return (
            None,
            f"none drifts at most {most_drift:g} %; {least['name']} drifts least, {least['drift_percent']:.2f} %",
        )
    best = within[0]
    why = f"{best['p50_ms']:.2f} ms a frame, drift {best['drift_percent']:.2f} % of {most_drift:g} %"
    if len(within) > 1:
        ratio, low, high = paired_ratio(whole_calls(result, within[1]["name"]), whole_calls(result, best["name"]))
        sure = "" if low > 1.0 else ", which may be noise"
        why += f"; {within[1]['name']} takes {ratio:.2f} times as long ({low:.2f} to {high:.2f}){sure}"
    return best, why
