"""Frames larger than the network's input: every face once, wherever the seams are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.runtime import Bundle, Detector
from retinaface_edge.runtime.large_frames import detect_in_tiles
from retinaface_edge.runtime.ops.iou import iou
from retinaface_edge.runtime.ops.tiles import TILE_STEP, pyramid, tiles_of

FACE = np.array([178, 57, 275, 180])
"""Where the face is in the portrait."""


@pytest.fixture(scope="module")
def detector(bundle: Bundle) -> Detector:
    return Detector.load(bundle, "openvino", "int8")


def test_a_panorama_of_24_faces_gives_24_and_none_twice(detector: Detector) -> None:
    panorama = np.concatenate([portrait()] * 24, axis=1)
    assert panorama.shape == (512, 12288, 3)
    faces = detect_in_tiles(detector, panorama)
    assert len(faces) == 24
    expected = FACE + np.array([512, 0, 512, 0]) * np.arange(24)[:, None]
    overlaps = iou(faces.boxes, expected.astype(float))
    assert sorted(overlaps.argmax(axis=1)) == list(range(24))
    assert overlaps.max(axis=1).min() > 0.8
    eyes = faces.landmarks[:, :2].mean(axis=1)
    assert ((eyes > faces.boxes[:, :2]) & (eyes < faces.boxes[:, 2:])).all()
    assert len(detector.detect(panorama)) < 24, "without tiles they are too small"


@pytest.mark.parametrize("seed", range(4))
def test_a_face_on_a_seam_is_found_once_at_any_size(detector: Detector, seed: int) -> None:
    """Portraits of one to four times their size, anywhere in a frame of six tiles and more."""
    from PIL import Image

    random = np.random.default_rng(seed)
    scale = (1, 2, 3, 4)[seed]
    large = np.asarray(Image.fromarray(portrait()).resize((512 * scale, 512 * scale), Image.Resampling.BILINEAR))
    frame = np.full((2300, 3000, 3), 110, np.uint8)
    x, y = (int(random.integers(0, 1 + side - 512 * scale)) for side in (3000, 2300))
    frame[y : y + 512 * scale, x : x + 512 * scale] = large
    faces = detect_in_tiles(detector, frame, 0.8)  # at four times its size, a badge scores 0.6
    assert len(faces) == 1
    assert iou(faces.boxes, (FACE * scale + np.array([x, y, x, y], float))[None])[0, 0] > 0.75


def test_a_frame_of_the_input_s_size_is_detected_as_it_is(detector: Detector) -> None:
    frame = portrait()[:480]
    np.testing.assert_array_equal(detect_in_tiles(detector, frame).boxes, detector.detect(frame).boxes)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 9000), st.integers(1, 9000), st.data())
def test_a_box_up_to_a_quarter_of_a_tile_is_whole_in_some_tile(
    width: int, height: int, tile_width: int, tile_height: int, data: st.DataObject
) -> None:
    tile_width, tile_height = max(16, tile_width), max(16, tile_height)
    w = data.draw(st.integers(1, max(1, min(width, int(tile_width * (1 - TILE_STEP)) - 1))))
    h = data.draw(st.integers(1, max(1, min(height, int(tile_height * (1 - TILE_STEP)) - 1))))
    x, y = data.draw(st.integers(0, width - w)), data.draw(st.integers(0, height - h))
    if (width / tile_width) * (height / tile_height) > 1e4:
        return
    assert any(
        t.x <= x and t.y <= y and x + w <= t.x + tile_width and y + h <= t.y + tile_height
        for t in tiles_of(width, height, tile_width, tile_height)
    )


def test_levels_end_with_the_whole_frame() -> None:
    tiles = pyramid(12288, 512, 640, 480)
    assert (tiles[-1].width, tiles[-1].height) == (12288, 512)
    assert {tile.width for tile in tiles} == {640, 1280, 2560, 5120, 10240, 12288}
