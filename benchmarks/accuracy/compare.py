"""What changed between two results: differences with a paired bootstrap interval, so that noise is called noise.

Pictures are drawn with replacement, the same draw for both sides (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13: percentile intervals). A difference whose 95 % interval holds 0 is noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..inference.network_under_test import MeasurementError
from ..results import judged_from, result_header
from .average_precision import LEFT_OUT, RIGHT, Judged
from .datasets import WIDER
from .wider_protocol import threshold_counts

DRAWS = 2000
LEVEL = 95.0
DRAWS_AT_ONCE = 50
SAME, NOISE, BETTER, WORSE = "same", "noise", "better", "worse"


@dataclass(frozen=True)
class Change:
    """One figure on both sides, AP in 0…1, and the interval of b − a; `verdict` is about b."""

    artifact: str
    protocol: str
    a: float | None
    b: float | None
    low: float | None
    high: float | None
    verdict: str


def compare_results(a: Mapping[str, Any], b: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """Compare two results of one kind, on the pictures that both have. Gives plain JSON values.

    Raises `MeasurementError` when they measure different things.
    """
    for key, name in (("kind", "kind"), ("scale", "scale"), ("input", "input size"), ("score_threshold", "threshold")):
        if a.get(key) != b.get(key):
            raise MeasurementError(
                f"the results differ in their {name}: {a.get(key)!r} and {b.get(key)!r}; measure both alike"
            )
    protocol = a.get("set", {}).get("protocol", "")
    if protocol != b.get("set", {}).get("protocol", ""):
        raise MeasurementError("one result is of the WIDER FACE protocol and the other is not; measure both alike")
    sides_a, sides_b = _rows(a), _rows(b)
    common = [name for name in sides_a if name in sides_b]
    if not common:
        raise MeasurementError(
            f"the results have no artifact in common: {', '.join(sides_a) or 'none'}, "
            f"and {', '.join(sides_b) or 'none'}"
        )
    images = _common_images(sides_a[common[0]], sides_b[common[0]])
    changes = [c for name in common for c in _changes(name, sides_a[name], sides_b[name], images, protocol, seed)]
    return {
        **result_header("compare", []),
        "of": a["kind"],
        "images": {"count": len(images), "in_a": a["images"]["count"], "in_b": b["images"]["count"]},
        "notes": list(_notes(a, b, len(images), sides_a, sides_b)),
        "changes": [asdict(change) for change in changes],
    }


def bootstrap_average_precision(
    judged: Sequence[Judged], weights: NDArray[np.float64], protocol: str
) -> NDArray[np.float64]:
    """AP (draws,) for each row of `weights` (draws, images): how often each image is counted. NaN without any face."""
    faces = weights @ np.array([image.faces for image in judged], np.float64)
    parts = np.array_split(weights, max(1, len(weights) // DRAWS_AT_ONCE))
    if protocol == WIDER:
        right, counted = threshold_counts(judged)
        areas = [_areas(part @ right, part @ counted) for part in parts]
    else:
        scores = np.concatenate([image.scores for image in judged])
        verdicts = np.concatenate([image.verdicts for image in judged])
        owner = np.repeat(np.arange(len(judged)), [len(image.scores) for image in judged])
        kept = verdicts != LEFT_OUT
        order = np.flatnonzero(kept)[np.argsort(-scores[kept], kind="stable")]
        hit = (verdicts[order] == RIGHT).astype(np.float64)
        areas = []
        for part in parts:
            times = part[:, owner[order]]
            areas.append(_areas(np.cumsum(times * hit, axis=1), np.cumsum(times, axis=1)))
    area = np.concatenate(areas)
    return np.asarray(np.divide(area, faces, out=np.full(len(area), np.nan), where=faces > 0))


def _areas(right: NDArray[np.float64], counted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Below the curve of right detections (rather than recall) against raised precision, for each row."""
    if right.shape[1] == 0:
        return np.zeros(len(right))
    precision = np.divide(right, counted, out=np.zeros_like(right), where=counted > 0)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(np.sum(np.diff(right, axis=1, prepend=0.0) * best, axis=1))


def _changes(
    name: str, a: Mapping[str, Any], b: Mapping[str, Any], images: Sequence[str], protocol: str, seed: int
) -> Iterator[Change]:
    rows_a = {row["image"]: row for row in a["per_image"]}
    rows_b = {row["image"]: row for row in b["per_image"]}
    draws = np.random.default_rng(seed).multinomial(len(images), np.full(len(images), 1 / len(images)), DRAWS)
    weights = np.vstack([np.ones(len(images)), draws])  # the first row is the set itself
    for setting in rows_a[images[0]]["protocols"]:
        judged_a = [judged_from(rows_a[image], setting) for image in images]
        judged_b = [judged_from(rows_b[image], setting) for image in images]
        aps_a = bootstrap_average_precision(judged_a, weights, protocol)
        aps_b = bootstrap_average_precision(judged_b, weights, protocol)
        difference = (aps_b - aps_a)[1:]
        difference = difference[np.isfinite(difference)]
        if not len(difference) or not np.isfinite(aps_a[0] + aps_b[0]):
            yield Change(name, setting, None, None, None, None, NOISE)
            continue
        low, high = np.percentile(difference, [(100 - LEVEL) / 2, (100 + LEVEL) / 2]).tolist()
        yield Change(name, setting, float(aps_a[0]), float(aps_b[0]), low, high, _verdict(low, high))


def _verdict(low: float, high: float) -> str:
    if low == high == 0.0:
        return SAME
    return NOISE if low <= 0.0 <= high else BETTER if low > 0.0 else WORSE


def _rows(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    if result["kind"] == "drift":
        return {f"{row['artifact']} to {row['reference']}": row for row in result["comparisons"]}
    return {row["artifact"]: row for row in result["results"]}


def _common_images(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    in_b = {row["image"] for row in b["per_image"]}
    common = [row["image"] for row in a["per_image"] if row["image"] in in_b]
    if not common:
        raise MeasurementError("the results have no picture in common; measure both on the same set")
    return common


def _notes(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    images: int,
    sides_a: Mapping[str, Any],
    sides_b: Mapping[str, Any],
) -> Iterator[str]:
    """What a reader must know before believing the differences."""
    if a["images"]["digest"] != b["images"]["digest"]:
        yield f"the sets are not the same: {images} pictures of the same name were compared"
    for key in sorted({*a["environment"], *b["environment"]}):
        old, new = a["environment"].get(key), b["environment"].get(key)
        if old != new:
            yield f"{key} differs: {old or 'absent'} and {new or 'absent'}"
    old_files = {artifact["name"]: artifact for artifact in a["artifacts"]}
    for artifact in b["artifacts"]:
        old = old_files.get(artifact["name"])
        if old and old["digest"] == artifact["digest"]:
            yield f"{artifact['name']} is the same in both"
        elif old and old["bytes"] != artifact["bytes"]:
            yield f"{artifact['name']}: {old['bytes']:,} bytes became {artifact['bytes']:,}"
    for name in (*(n for n in sides_a if n not in sides_b), *(n for n in sides_b if n not in sides_a)):
        yield f"only one of them has {name}"
