"""The fastest artifact of this machine whose faces are close enough to FP32's."""

from __future__ import annotations

from ..errors import MeasurementError
from ..inference.network_under_test import REFERENCE
from ..stats.bootstrap import paired_ratio
from .result import BenchResult, RunnerResult


def pick(result: BenchResult, max_drift_percent: float) -> tuple[RunnerResult | None, str]:
    """That artifact, or None if every one drifts more, and why.

    Drift is in percent as `runtime/ops/iou.py` defines it. Raises `MeasurementError` when it is unknown.
    """
    on_one_core = len(result.machine.cores) == 1  # which clock, as in `BenchResult.call_seconds`
    known = [(runner.agreement.drift_percent, runner) for runner in result.artifacts() if runner.agreement]
    if not known:
        raise MeasurementError(f"drift is measured against {REFERENCE}, which cannot run here; install onnxruntime")
    within = sorted(
        ((drift, runner) for drift, runner in known if drift <= max_drift_percent),
        key=lambda pair: pair[1].latency.cpu_ms if on_one_core else pair[1].latency.p50_ms,
    )
    if not within:
        drift, least = min(known, key=lambda pair: pair[0])
        return None, f"none drifts at most {max_drift_percent:g} %; {least.name} drifts least, {drift:.2f} %"
    drift, best = within[0]
    why = f"{best.latency.p50_ms:.2f} ms per frame, drift {drift:.2f} % of {max_drift_percent:g} %"
    if len(within) > 1:
        second = within[1][1]
        ratio = paired_ratio(result.call_seconds(second), result.call_seconds(best))
        sure = "" if ratio.low > 1.0 else ", which may be noise"
        why += f"; {second.name} takes {ratio.value:.2f} times as long ({ratio.low:.2f} to {ratio.high:.2f}){sure}"
    return best, why
