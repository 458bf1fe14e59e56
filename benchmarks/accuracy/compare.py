"""Comparison of two results: differences of average precision with paired bootstrap intervals.

Pictures are drawn with replacement, the same draw for both sides (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13: percentile intervals). A difference whose 95 % interval holds 0 is noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import MeasurementError
from ..results import FORMAT_VERSION, ImageSet, MeasuredNetwork, network_named
from ..versions import environment
from .average_precision import LEFT_OUT, RIGHT, Judged
from .datasets import WIDER
from .result import Change, CompareResult, EvalResult, ImagesInCommon, JudgedImage, Verdict
from .wider_protocol import threshold_counts

DRAWS = 2000
INTERVAL_PERCENT = 95.0
"""How much of the drawn differences the interval holds."""
DRAWS_AT_ONCE = 50


@dataclass(frozen=True)
class Comparable:
    """What a result has to compare: the verdicts on its images by row, and the conditions it was measured under.

    A row is an artifact, or an artifact against a reference. `conditions` must be equal on both sides, by the name that
    a message calls them; `protocol` is `datasets.WIDER` or another.
    """

    kind: Literal["drift", "eval"]
    conditions: Mapping[str, object]
    protocol: str
    rows: Mapping[str, Sequence[JudgedImage]]
    images: ImageSet
    environment: Mapping[str, str]
    networks: Sequence[MeasuredNetwork]


def comparable(result: EvalResult) -> Comparable:
    """The accuracy on an annotated set, by artifact."""
    return Comparable(
        kind=result.kind,
        conditions={
            "scale": result.scale,
            "input size": size_text(result.input_px),
            "threshold": result.score_threshold,
        },
        protocol=result.dataset.protocol,
        rows={row.artifact: row.per_image for row in result.results},
        images=result.images,
        environment=result.environment,
        networks=result.networks,
    )


def size_text(size_px: tuple[int, int] | None) -> str:
    """A size for people, for instance `640x480`."""
    return "unknown" if size_px is None else f"{size_px[0]}x{size_px[1]}"


def compare_results(a: Comparable, b: Comparable, seed: int = 0) -> CompareResult:
    """Compare two results of one kind, on the pictures that both have.

    Raises `MeasurementError` when they measure different things.
    """
    for name, (ours, theirs) in {
        "kind": (a.kind, b.kind),
        **{name: (a.conditions[name], b.conditions.get(name)) for name in a.conditions},
    }.items():
        if ours != theirs:
            raise MeasurementError(
                f"the results differ in their {name}: {ours!r} and {theirs!r}; measure both under the same conditions"
            )
    if a.protocol != b.protocol:
        raise MeasurementError(
            f"the results differ in their protocol: {a.protocol!r} and {b.protocol!r}; measure both by the same one"
        )
    common = [name for name in a.rows if name in b.rows]
    if not common:
        raise MeasurementError(
            f"the results have no artifact in common: {', '.join(a.rows) or 'none'}, and {', '.join(b.rows) or 'none'}"
        )
    images = _common_images(a.rows[common[0]], b.rows[common[0]])
    return CompareResult(
        kind="compare",
        format_version=FORMAT_VERSION,
        environment=environment(),
        of=a.kind,
        images=ImagesInCommon(len(images), a.images.count, b.images.count),
        notes=tuple(_notes(a, b, len(images))),
        changes=tuple(
            change
            for name in common
            for change in _changes(name, (a.rows[name], b.rows[name]), images, a.protocol, seed)
        ),
    )


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
    name: str,
    sides: tuple[Sequence[JudgedImage], Sequence[JudgedImage]],
    images: Sequence[str],
    protocol: str,
    seed: int,
) -> Iterator[Change]:
    by_name_a, by_name_b = ({image.image: image for image in side} for side in sides)
    draws = np.random.default_rng(seed).multinomial(len(images), np.full(len(images), 1 / len(images)), DRAWS)
    weights = np.vstack([np.ones(len(images)), draws]).astype(np.float64)  # the first row is the set itself
    for setting in by_name_a[images[0]].protocols:
        aps_a, aps_b = (
            bootstrap_average_precision([side[image].judged(setting) for image in images], weights, protocol)
            for side in (by_name_a, by_name_b)
        )
        difference = (aps_b - aps_a)[1:]
        difference = difference[np.isfinite(difference)]
        if not len(difference) or not np.isfinite(aps_a[0] + aps_b[0]):
            yield Change(name, setting, None, None, None, None, Verdict.NOISE)
            continue
        tail = (100 - INTERVAL_PERCENT) / 2
        low, high = np.percentile(difference, [tail, 100 - tail]).tolist()
        yield Change(name, setting, float(aps_a[0]), float(aps_b[0]), low, high, _verdict(low, high))


def _verdict(low: float, high: float) -> Verdict:
    if low == high == 0.0:
        return Verdict.SAME
    return Verdict.NOISE if low <= 0.0 <= high else Verdict.BETTER if low > 0.0 else Verdict.WORSE


def _common_images(a: Sequence[JudgedImage], b: Sequence[JudgedImage]) -> list[str]:
    in_b = {image.image for image in b}
    common = [image.image for image in a if image.image in in_b]
    if not common:
        raise MeasurementError("the results have no picture in common; measure both on the same set")
    return common


def _notes(a: Comparable, b: Comparable, images: int) -> Iterator[str]:
    """What a reader must know before believing the differences."""
    if a.images.digest != b.images.digest:
        yield f"the sets are not the same: {images} pictures of the same name were compared"
    for key in sorted({*a.environment, *b.environment}):
        old, new = a.environment.get(key), b.environment.get(key)
        if old != new:
            yield f"{key} differs: {old or 'absent'} and {new or 'absent'}"
    for network in b.networks:
        before = network_named(a.networks, network.name)
        if before and before.digest == network.digest:
            yield f"{network.name} is the same in both"
        elif before and before.size_bytes != network.size_bytes:
            yield f"{network.name}: {before.size_bytes:,} bytes became {network.size_bytes:,}"
    for name in (*(n for n in a.rows if n not in b.rows), *(n for n in b.rows if n not in a.rows)):
        yield f"only one of them has {name}"
