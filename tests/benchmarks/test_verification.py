"""Verification figures against scikit-learn, against a slow reading of the definitions, and by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.benchmarks.identity.pairs import Pair, read_pairs
from retinaface_edge.benchmarks.identity.verification import (
    FARS,
    best_threshold,
    consecutive_folds,
    fold_accuracy,
    roc,
    tar_at_far,
    wilson,
)

# Few distinct values, so that scores tie.
values = st.integers(-6, 6).map(lambda number: number / 7) | st.floats(-1, 1, allow_nan=False)
scored_pairs = st.lists(st.tuples(values, st.booleans()), min_size=4, max_size=60).filter(
    lambda pairs: 0 < sum(same for _, same in pairs) < len(pairs)
)


def arrays(pairs: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([score for score, _ in pairs]), np.array([same for _, same in pairs])


@given(scored_pairs)
def test_the_roc_is_scikit_learns(pairs: list[tuple[float, bool]]) -> None:
    scores, same = arrays(pairs)
    far, tar = roc(scores, same)
    theirs_far, theirs_tar, _ = roc_curve(same, scores, drop_intermediate=False)
    np.testing.assert_allclose(far, theirs_far, atol=1e-12)
    np.testing.assert_allclose(tar, theirs_tar, atol=1e-12)
    assert np.trapezoid(tar, far) == pytest.approx(roc_auc_score(same, scores), abs=1e-12)


@given(scored_pairs, st.sampled_from([0.5, 0.3, *FARS]))
def test_tar_at_far_is_the_best_point_of_the_roc(pairs: list[tuple[float, bool]], far: float) -> None:
    scores, same = arrays(pairs)
    found = tar_at_far(scores[same], scores[~same], far)
    if far * np.count_nonzero(~same) < 1.0:
        assert found is None
        return
    assert found is not None
    theirs_far, theirs_tar, _ = roc_curve(same, scores, drop_intermediate=False)
    assert found.tar == pytest.approx(theirs_tar[theirs_far <= far + 1e-12].max(), abs=1e-12)
    # The threshold is one: it accepts as many, and no more impostors than allowed.
    assert np.mean(scores[same] >= found.threshold) == pytest.approx(found.tar)
    assert np.mean(scores[~same] >= found.threshold) <= far + 1e-12
    assert found.tar_low <= found.tar <= found.tar_high


@given(scored_pairs)
def test_the_best_threshold_is_better_than_any_other(pairs: list[tuple[float, bool]]) -> None:
    scores, same = arrays(pairs)
    threshold = best_threshold(scores, same)
    right = np.count_nonzero((scores >= threshold) == same)
    for other in (*scores, math.inf, -math.inf):
        others = np.count_nonzero((scores >= other) == same)
        assert others < right or (others == right and (other >= threshold or other == -math.inf))


def test_random_embeddings_give_what_an_independent_reading_gives() -> None:
    """Ten folds and TAR at every FAR, by loops over pairs and thresholds."""
    random = np.random.default_rng(5)
    people = random.normal(size=(150, 16))
    first = people + 0.8 * random.normal(size=people.shape)
    second = people + 0.8 * random.normal(size=people.shape)
    second[75:] = np.roll(second[75:], 1, axis=0)
    cosine = [float(a @ b / math.sqrt((a @ a) * (b @ b))) for a, b in zip(first, second, strict=True)]
    same = [index < 75 for index in range(150)]
    order = random.permutation(150).tolist()
    cosine, same = [cosine[i] for i in order], [same[i] for i in order]
    folds = [index * 10 // 150 for index in range(150)]
    assert consecutive_folds(150).tolist() == folds
    accuracies = []
    for number in range(10):
        rest = [i for i in range(150) if folds[i] != number]
        best, threshold = -1, math.inf
        for candidate in sorted(cosine[i] for i in rest):
            right = sum((cosine[i] >= candidate) == same[i] for i in rest)
            if right > best:
                best, threshold = right, candidate
        fold = [i for i in range(150) if folds[i] == number]
        accuracies.append(sum((cosine[i] >= threshold) == same[i] for i in fold) / len(fold))
    found = fold_accuracy(np.array(cosine), np.array(same), np.array(folds))
    assert found is not None
    assert found.folds == pytest.approx(accuracies, abs=1e-9)
    assert found.mean == pytest.approx(sum(accuracies) / 10, abs=1e-9)
    for far in FARS:
        impostors = [c for c, s in zip(cosine, same, strict=True) if not s]
        best_tar = max(
            (
                sum(c >= t for c, s in zip(cosine, same, strict=True) if s) / 75
                for t in (*cosine, 2.0)
                if sum(c >= t for c in impostors) / 75 <= far
            ),
        )
        measured = tar_at_far(np.array(cosine)[same], np.array(impostors), far)
        assert (measured is None) == (far * 75 < 1)
        if measured is not None:
            assert measured.tar == pytest.approx(best_tar, abs=1e-9)


def test_by_hand() -> None:
    genuine, impostor = (
        np.array([0.9, 0.8, 0.7, 0.3]),
        np.array([0.75, 0.5, 0.2, 0.1, 0.0, 0.0, -0.1, -0.2, -0.3, -0.4]),
    )
    one = tar_at_far(genuine, impostor, 0.1)
    assert one is not None
    assert (one.tar, one.threshold) == (0.75, 0.7)  # the impostor at 0.75 is one of ten; that at 0.5 would be two
    assert tar_at_far(genuine, impostor, 0.01) is None
    low, high = wilson(3, 4)
    assert (low, high) == pytest.approx((0.30064, 0.95442), abs=1e-4)  # Newcombe (1998), method 3


def test_a_face_that_was_not_found_is_a_genuine_pair_missed_and_an_impostor_refused() -> None:
    genuine, impostor = np.array([0.9, np.nan]), np.array([np.nan] * 9 + [0.1])
    found = tar_at_far(genuine, impostor, 0.1)
    assert found is not None
    assert found.tar == 0.5
    scores, same = np.array([0.9, np.nan, np.nan, 0.1]), np.array([True, True, False, False])
    folds = fold_accuracy(np.tile(scores, 2), np.tile(same, 2), np.repeat([0, 1], 4))
    assert folds is not None
    assert folds.folds == (0.75, 0.75)  # all but the genuine pair without a score
    far, tar = roc(scores, same)
    assert (far[-1], tar[-1]) == (0.5, 0.5)


def test_pairs_and_templates_are_read(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_bytes(b"\xef\xbb\xbffirst,second,same,fold\r\na.jpg,sub\\b.jpg,1,3\r\n/x/c.jpg;d.jpg,e.jpg,no,4\r\n")
    one, two = read_pairs(file)
    assert one == Pair((tmp_path / "a.jpg",), (tmp_path / "sub/b.jpg",), True, 3)
    assert two == Pair((Path("/x/c.jpg"), tmp_path / "d.jpg"), (tmp_path / "e.jpg",), False, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("first,second\na,b\n", "lacks the columns same"),
        ("first,second,same\n", "holds no pair"),
        ("first,second,same\na,b,1\na,b,2\n", "line 3: same should be 1 or 0, not '2'"),
        ("first,second,same\na,,1\n", "line 2: a pair needs a picture"),
        ("first,second,same,fold\na,b,1,x\n", "line 2: fold should be a whole number"),
        ("first,second,same,fold\na,b,1,1\nc,d,0,\n", "for all or for none"),
    ],
)
def test_what_is_wrong_with_a_list_of_pairs_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(text)
    with pytest.raises(MeasurementError, match=message):
        read_pairs(file)
