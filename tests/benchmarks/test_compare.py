"""Comparisons call noise noise, and a real change a change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinaface_edge.benchmarks.accuracy.average_precision import Judged, average_precision_of
from retinaface_edge.benchmarks.accuracy.compare import Comparable, bootstrap_average_precision, compare_results
from retinaface_edge.benchmarks.accuracy.datasets import AP50, WIDER
from retinaface_edge.benchmarks.accuracy.result import (
    ImagesInCommon,
    JudgedImage,
    Verdict,
    scores_of,
    verdicts_of,
)
from retinaface_edge.benchmarks.accuracy.wider_protocol import wider_average_precision
from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.benchmarks.results import ImageSet, MeasuredNetwork
from retinaface_edge.runtime.records import from_json, to_json

PICTURES = 60


def judged(random: np.random.Generator, chance: float, pictures: int = PICTURES) -> list[Judged]:
    """Pictures of four faces, each found with that chance, and some wrong detections."""
    found = []
    for _ in range(pictures):
        verdicts = np.concatenate([np.ones(random.binomial(4, chance)), np.zeros(2), -np.ones(1)]).astype(np.int8)
        scores = np.sort(np.round(random.uniform(0.02, 1, len(verdicts)), 6))[::-1].copy()
        found.append(Judged(scores, random.permutation(verdicts), 4))
    return found


def result(rows: list[Judged], **changes: Any) -> Comparable:
    images = tuple(
        JudgedImage(f"{i}.jpg", scores_of({"faces": row}), verdicts_of({"faces": row})) for i, row in enumerate(rows)
    )
    return replace(
        Comparable(
            kind="eval",
            conditions={"scale": "vga", "input size": "640x480", "threshold": 0.5},
            protocol=AP50,
            rows={"x int8": images},
            images=ImageSet(len(rows), "d"),
            environment={"numpy": "2"},
            networks=(MeasuredNetwork("x int8", 1, "1"),),
        ),
        **changes,
    )


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 1.0))
@settings(max_examples=30)
def test_every_draw_is_the_ap_of_the_set_with_its_pictures_repeated(seed: int, chance: float) -> None:
    random = np.random.default_rng(seed)
    rows = judged(random, chance, 8)
    weights = random.multinomial(8, np.full(8, 1 / 8), 3).astype(float)
    repeated = [[row for row, times in zip(rows, draw, strict=True) for _ in range(int(times))] for draw in weights]
    for protocol, rule in ((AP50, average_precision_of), (WIDER, wider_average_precision)):
        if protocol == WIDER:
            expected = [wider_average_precision(rows, draw) for draw in weights]
        else:
            expected = [rule(copies) for copies in repeated]
        assert bootstrap_average_precision(rows, weights, protocol) == pytest.approx(expected, abs=1e-9)


def test_the_same_twice_is_the_same() -> None:
    rows = judged(np.random.default_rng(0), 0.7)
    (change,) = compare_results(result(rows), result(rows)).changes
    assert (change.verdict, change.difference_low, change.difference_high) == (Verdict.SAME, 0.0, 0.0)


def test_a_change_that_is_there_is_seen_and_its_direction_told() -> None:
    random = np.random.default_rng(1)
    low, high = judged(random, 0.4), judged(random, 0.9)
    assert compare_results(result(low), result(high)).changes[0].verdict == Verdict.BETTER
    assert compare_results(result(high), result(low)).changes[0].verdict == Verdict.WORSE


def test_noise_is_called_noise_about_as_often_as_the_interval_says() -> None:
    verdicts = []
    for seed in range(40):
        random = np.random.default_rng(100 + seed)
        pair = compare_results(result(judged(random, 0.7)), result(judged(random, 0.7)), seed)
        verdicts.append(pair.changes[0].verdict)
    assert verdicts.count(Verdict.NOISE) >= 34


def test_only_common_pictures_are_compared_and_unlike_conditions_are_told() -> None:
    rows = judged(np.random.default_rng(2), 0.7)
    other = result(rows[:40], environment={"numpy": "3"}, images=ImageSet(40, "e"))
    found = compare_results(result(rows), other)
    assert found.images == ImagesInCommon(count=40, in_a=60, in_b=40)
    assert "numpy differs: 2 and 3" in found.notes and "x int8 is the same in both" in found.notes


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "drift"},
        {"protocol": WIDER},
        {"conditions": {"scale": "original", "input size": "640x480", "threshold": 0.5}},
        {"conditions": {"scale": "vga", "input size": "640x480", "threshold": 0.3}},
    ],
)
def test_unlike_measurements_are_refused(changes: dict[str, Any]) -> None:
    rows = judged(np.random.default_rng(3), 0.7, 4)
    with pytest.raises(MeasurementError, match="the results differ in their"):
        compare_results(result(rows), result(rows, **changes))


def test_verdicts_survive_being_written() -> None:
    for row in judged(np.random.default_rng(4), 0.5, 5):
        image = JudgedImage("a.jpg", scores_of({"faces": row}), verdicts_of({"faces": row}))
        back = from_json(JudgedImage, to_json(image)).judged("faces")
        assert np.array_equal(back.verdicts, row.verdicts) and np.array_equal(back.scores, row.scores)
        assert back.faces == row.faces
