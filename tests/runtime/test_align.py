"""Aligned crops, against other implementations of the similarity and of the warp."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.transform import SimilarityTransform, warp

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.runtime import Bundle, Detector, Face, ImageError
from retinaface_edge.runtime.ops.align import TEMPLATE, aligned, similarity


def face_at(points: np.ndarray) -> Face:
    return Face(1.0, (0.0, 0.0, 1.0, 1.0), tuple((float(x), float(y)) for x, y in points))


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The paper's own way, by singular values (Umeyama 1991, equations 34 to 43)."""
    s, t = source - source.mean(0), target - target.mean(0)
    u, d, vt = np.linalg.svd(t.T @ s / len(s))
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(sign) @ vt
    scale = (d * sign).sum() / s.var(0).sum()
    return np.column_stack([scale * rotation, target.mean(0) - scale * rotation @ source.mean(0)])


def test_the_template_is_that_of_the_narrower_crop_with_eight_pixels_more_at_each_side() -> None:
    """SphereFace (arXiv 1704.08063) published it for 96 × 112; ArcFace put the same face in the middle of 112 × 112."""
    sphereface = [[30.2946, 51.6963], [65.5318, 51.5014], [48.0252, 71.7366], [33.5493, 92.3655], [62.7299, 92.2041]]
    np.testing.assert_allclose(TEMPLATE - (8, 0), sphereface, atol=1e-9)


def test_the_template_is_an_upright_face_in_the_middle_of_its_crop() -> None:
    left, right, nose, mouth_left, mouth_right = TEMPLATE
    assert np.abs([left[1] - right[1], mouth_left[1] - mouth_right[1]]).max() < 0.3
    assert np.abs([(left[0] + right[0]) / 2 - 56, nose[0] - 56, (mouth_left[0] + mouth_right[0]) / 2 - 56]).max() < 0.2


@given(st.integers(0, 2**32 - 1))
def test_the_similarity_is_umeyamas(seed: int) -> None:
    random = np.random.default_rng(seed)
    source, target = random.normal(0, 50, (2, 5, 2)) + random.normal(0, 200, (2, 1, 2))
    np.testing.assert_allclose(similarity(source, target), umeyama(source, target), rtol=1e-7, atol=1e-7)


@given(st.floats(-3.1, 3.1), st.floats(0.05, 20), st.floats(-500, 500), st.floats(-500, 500))
def test_an_exact_similarity_is_found_again(angle: float, scale: float, x: float, y: float) -> None:
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.array([[cos, -sin, x], [sin, cos, y]])
    moved = TEMPLATE @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(similarity(TEMPLATE, moved), matrix, rtol=1e-9, atol=1e-6)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_points_that_coincide_on_either_side_have_no_similarity() -> None:
    here = np.full((5, 2), 7.0)
    for source, target in ((here, TEMPLATE), (TEMPLATE, here), (here, here)):
        with pytest.raises(ImageError, match="at one point"):
            similarity(source, target)


@pytest.mark.parametrize("size", [112, 224, 64])
@pytest.mark.parametrize("angle", [0.0, 0.4, -2.0])
@pytest.mark.parametrize("grey", [False, True])
def test_the_crop_is_that_of_another_warp(size: int, angle: float, grey: bool) -> None:
    image = portrait()[:, :, 0] if grey else portrait()
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (TEMPLATE - 56) @ turn.T * 1.3 + (225, 120) + np.random.default_rng(1).normal(0, 2, (5, 2))
    crop = aligned(image, face_at(points), size)
    assert crop.shape == (size, size, 3)[: image.ndim]
    assert crop.dtype == np.uint8
    to_frame = SimilarityTransform(np.vstack([umeyama(TEMPLATE * size / 112, points), [0, 0, 1]]))
    reference = warp(image, to_frame, output_shape=(size, size), order=1, preserve_range=True)
    assert np.abs(crop - reference).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("shift", [(0, 0), (-40, -30), (100, 0), (0, 110), (140, 150)])
def test_the_crop_at_each_edge_is_that_of_another_warp(shift: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(1, 256, (200, 190, 3), np.uint8)
    crop = aligned(image, face_at(TEMPLATE + shift))
    expected = np.zeros((112, 112, 3), np.uint8)
    rows, columns = (np.arange(112) + shift[axis] for axis in (1, 0))
    inside = np.ix_((rows >= 0) & (rows < 200), (columns >= 0) & (columns < 190))
    expected[inside] = image[np.ix_(rows[(rows >= 0) & (rows < 200)], columns[(columns >= 0) & (columns < 190)])]
    np.testing.assert_array_equal(crop, expected)


def test_a_crop_may_be_one_pixel() -> None:
    assert aligned(np.full((9, 9, 3), 7, np.uint8), face_at(TEMPLATE / 20), 1).shape == (1, 1, 3)


def test_what_lies_outside_of_the_image_is_black() -> None:
    image = np.full((50, 50, 3), 200, np.uint8)
    crop = aligned(image, face_at(TEMPLATE - 56))
    assert (crop[:50, :] == 0).all()
    assert (crop[60:100, 60:100] == 200).all()
    assert (aligned(image, face_at(TEMPLATE + 1e7)) == 0).all()


def test_eyes_and_mouth_of_a_detected_face_are_where_recognition_expects_them(bundle: Bundle) -> None:
    frame = portrait()
    with Detector.load(bundle, "openvino", "fp32") as detector:
        (face,) = detector.detect(frame)
        crop = aligned(frame, face)
        canvas = np.zeros((480, 640, 3), np.uint8)
        canvas[100:212, 200:312] = crop
        (again,) = detector.detect(canvas)
    assert np.abs(np.array(again.landmarks) - (200, 100) - TEMPLATE).max() < 6


@pytest.mark.parametrize(
    ("points", "size"),
    [(np.full((5, 2), 7.0), 112), (np.full((5, 2), np.nan), 112), (TEMPLATE * np.inf, 112), (TEMPLATE, 0)],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_faces_that_cannot_be_aligned_are_refused(points: np.ndarray, size: int) -> None:
    with pytest.raises(ImageError, match="aligned"):
        aligned(np.zeros((9, 9, 3), np.uint8), face_at(points), size)
