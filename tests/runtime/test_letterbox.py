"""The letterbox: against a slow one pixel at a time, against float interpolation, and for every kind of array."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinaface_edge.runtime import ImageError, Spec
from retinaface_edge.runtime.ops.letterbox import check_frame, letterbox, letterbox_for
from retinaface_edge.runtime.ops.resample import taps

SPECS = (Spec(96, 64), Spec(64, 64), Spec(64, 128))
SIDES = st.one_of(st.integers(1, 40), st.integers(1, 6).map(lambda ratio: 64 * ratio), st.just(192))


def boxed(spec: Spec, frame: np.ndarray, rgb: bool = False) -> np.ndarray:
    out = np.full(spec.input_shape, 251, np.uint8)
    letterbox(spec, letterbox_for(spec, frame.shape[1], frame.shape[0]), frame, out, rgb)
    return out[0]


def axis(source: int, target: int, index: int) -> tuple[int, int, int]:
    """Neighbours and weight of one target pixel, in exact integer arithmetic."""
    doubled = max((2 * index + 1) * source - target, 0)  # position × 2·target
    first, rest = divmod(doubled, 2 * target)
    return min(first, source - 1), min(first + 1, source - 1), (rest * 256 + target) // (2 * target)


def pixel_by_pixel(spec: Spec, frame: np.ndarray) -> np.ndarray:
    """The definition, in Python integers: vertical first, rounded to 8 bits, then horizontal."""
    height, width = frame.shape[:2]
    if spec.width * height <= spec.height * width:
        w, h = spec.width, max(1, int(height * spec.width / width + 0.5))
    else:
        w, h = max(1, int(width * spec.height / height + 0.5)), spec.height
    out = np.empty((spec.height, spec.width, 3), np.uint8)
    out[:] = spec.mean
    values = frame.astype(int).tolist()
    for y in range(h):
        top, bottom, down = axis(height, h, y)
        for x in range(w):
            left, right, along = axis(width, w, x)
            for c in range(3):
                a, b = (
                    (values[top][column][c] * (256 - down) + values[bottom][column][c] * down + 128) >> 8
                    for column in (left, right)
                )
                out[y, x, c] = (a * (256 - along) + b * along + 128) >> 8
    return out


@settings(max_examples=60)
@given(st.sampled_from(SPECS), SIDES, SIDES, st.integers(0, 2**32 - 1))
def test_every_byte_is_the_definitions(spec: Spec, width: int, height: int, seed: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    np.testing.assert_array_equal(boxed(spec, frame), pixel_by_pixel(spec, frame))


@pytest.mark.parametrize("size", [(256, 6), (384, 10), (64, 64), (128, 128), (192, 192)])
@pytest.mark.parametrize("grey", [False, True])
def test_rows_and_columns_of_whole_ratios_may_differ_in_kind(size: tuple[int, int], grey: bool) -> None:
    """6 rows become 2, each third one as it is, while 256 columns become 64 means of two."""
    frame = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    frame = np.repeat(frame[:, :, :1], 3, axis=2) if grey else frame
    got = boxed(SPECS[1], frame[:, :, 0] if grey else frame)
    np.testing.assert_array_equal(got, pixel_by_pixel(SPECS[1], frame))


def test_rows_that_are_not_scaled_are_the_same_in_any_block() -> None:
    """1923 × 100 becomes 1920 × 100, some thirty rows at a time; twenty rows alone are one block."""
    spec, frame = Spec(1920, 1088), np.random.default_rng(2).integers(0, 256, (100, 1923, 3), dtype=np.uint8)
    assert letterbox_for(spec, 1923, 100).rows.step == 1 < 20 < letterbox_for(spec, 1923, 100).scratch.rows < 50
    whole = boxed(spec, frame)
    for top in range(0, 100, 20):
        np.testing.assert_array_equal(whole[top : top + 20], boxed(spec, frame[top : top + 20])[:20])


@settings(max_examples=100)
@given(st.sampled_from(SPECS), SIDES, SIDES, st.integers(0, 2**32 - 1))
def test_fixed_point_is_within_two_steps_of_real_interpolation(spec: Spec, width: int, height: int, seed: int) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    placement = letterbox_for(spec, width, height)
    x = np.clip((np.arange(placement.width) + 0.5) * width / placement.width - 0.5, 0, width - 1)
    y = np.clip((np.arange(placement.height) + 0.5) * height / placement.height - 0.5, 0, height - 1)
    left, top = x.astype(int), y.astype(int)
    along, down = (x - left)[:, None], (y - top)[:, None, None]
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    rows = frame[top] * (1 - down) + frame[bottom] * down
    exact = rows[:, left] * (1 - along) + rows[:, right] * along
    got = boxed(spec, frame)[: placement.height, : placement.width]
    assert np.abs(got - exact).max() <= 2.0  # a half for each rounding, and weights in 1/256 of 255


@settings(max_examples=80)
@given(st.sampled_from(SPECS), SIDES, SIDES, st.integers(0, 2**32 - 1))
def test_views_give_what_their_copies_give(spec: Spec, width: int, height: int, seed: int) -> None:
    memory = np.random.default_rng(seed).integers(0, 256, (2 * height + 1, 2 * width + 3, 4), dtype=np.uint8)
    memory.flags.writeable = False
    views = [
        memory[1 : 1 + height, 2 : 2 + width, :3],
        memory[: 2 * height : 2, : 2 * width : 2, 1:],
        memory[height - 1 :: -1, width - 1 :: -1, 2::-1],
        memory[:height, :width, :3].transpose(1, 0, 2),
        np.asfortranarray(memory[:height, :width, :3]),
    ]
    for view in views:
        copy = view.copy(order="C")
        np.testing.assert_array_equal(boxed(spec, view), boxed(spec, copy))
        np.testing.assert_array_equal(boxed(spec, view, rgb=True), boxed(spec, copy[:, :, ::-1].copy()))
        grey = view[:, :, 1]
        np.testing.assert_array_equal(boxed(spec, grey), boxed(spec, np.repeat(grey[:, :, None], 3, axis=2)))


@settings(max_examples=200)
@given(st.integers(1, 300), st.integers(1, 100), st.booleans())
def test_a_step_is_every_nth_pixel_with_one_weight_for_all(source: int, target: int, whole: bool) -> None:
    """Every whole-number ratio has one, for which no array has to be widened, and no other ratio has."""
    source = source * target if whole else source
    axis_taps = taps(source, target)
    assert axis_taps.step == (source // target if source % target == 0 else 0)
    if axis_taps.step:
        np.testing.assert_array_equal(axis_taps.first, axis_taps.first[0] + axis_taps.step * np.arange(target))
        assert set(axis_taps.weight.tolist()) in ({0}, {128})
    for index in (0, target // 2, target - 1):
        expected = axis(source, target, index)
        assert (axis_taps.first[index], axis_taps.second[index], axis_taps.weight[index]) == expected


@pytest.mark.parametrize("size", [(1, 1), (1, 8000), (8000, 1), (8000, 8000), (7999, 3), (2, 5000)])
def test_extreme_sizes(size: tuple[int, int]) -> None:
    width, height = size
    spec = Spec(64, 64)
    frame = np.full((height, width, 3), (9, 120, 240), np.uint8)
    out = boxed(spec, frame)
    placement = letterbox_for(spec, width, height)
    assert (placement.width, placement.height) == (max(1, 64 * width // max(size)), max(1, 64 * height // max(size)))
    assert (out[: placement.height, : placement.width] == (9, 120, 240)).all()
    assert (out[placement.height :] == spec.mean).all()
    assert (out[:, placement.width :] == spec.mean).all()


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080), (1023, 767), (3001, 2001)])
@pytest.mark.parametrize("layout", ["bgr", "cropped", "rgb", "grey", "every second"])
def test_nothing_of_the_frames_size_is_allocated(size: tuple[int, int], layout: str) -> None:
    spec, (width, height) = Spec(), size
    memory = np.zeros((2 * height, 2 * width, 3), np.uint8)
    frame = {
        "bgr": memory[:height, :width].copy(),
        "cropped": memory[:height, :width],
        "rgb": memory[:height, :width],
        "grey": memory[:height, :width, 0],
        "every second": memory[::2, ::2],
    }[layout]
    out = np.empty(spec.input_shape, np.uint8)
    placement = letterbox_for(spec, width, height)
    letterbox(spec, placement, frame, out)
    tracemalloc.start()
    letterbox(spec, placement, frame, out, rgb=layout == "rgb")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000  # a few blocks of rows; the smallest of these frames has 786,000 pixels


def test_one_placement_serves_many_frames() -> None:
    spec, random = SPECS[0], np.random.default_rng(3)
    placement = letterbox_for(spec, 200, 77)
    out = np.empty(spec.input_shape, np.uint8)
    for _ in range(5):
        frame = random.integers(0, 256, (77, 200, 3), dtype=np.uint8)
        letterbox(spec, placement, frame, out)
        np.testing.assert_array_equal(out[0], boxed(spec, frame))


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ([[1, 2], [3, 4]], "NumPy array, not list"),
        (None, "NumPy array, not NoneType"),
        (np.zeros((4, 4, 3)), "uint8 with values 0…255, not float64"),
        (np.zeros((4, 4, 3), np.int8), "not int8"),
        (np.zeros((4, 4, 4), np.uint8), r"not \(4, 4, 4\); drop an alpha channel"),
        (np.zeros((4, 4, 1), np.uint8), r"not \(4, 4, 1\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"not \(1, 4, 4, 3\)"),
        (np.zeros((16,), np.uint8), r"not \(16,\)"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
        (np.zeros((4, 0), np.uint8), "at least one pixel"),
    ],
)
def test_other_arrays_are_refused_with_what_came_and_what_is_wanted(frame: object, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        check_frame(frame)
    with pytest.raises(ValueError, match="frame must"):
        check_frame(frame)
