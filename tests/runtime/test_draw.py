"""Drawings: each mark has its place and colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinaface_edge.runtime import Faces, ImageError
from retinaface_edge.runtime.draw import draw_faces

GREEN, RED, YELLOW, BLUE = (0, 230, 118), (255, 82, 82), (255, 214, 0), (64, 156, 255)
POINTS = np.array([[[130.0, 120], [170, 120], [150, 140], [135, 160], [165, 160]]])


def drawn(path: Path, box: tuple[float, ...] = (110, 100, 190, 180), side: int = 320, grey: int = 0) -> np.ndarray:
    faces = Faces(np.array([0.987]), np.array([box], float), POINTS)
    draw_faces(np.full((side, side, 3), grey, np.uint8), faces, path)
    return np.asarray(Image.open(path).convert("RGB"))


def test_the_box_the_points_and_the_score_are_where_they_belong(tmp_path: Path) -> None:
    pixels = drawn(tmp_path / "a.png")
    for x, y in ((110, 140), (190, 140), (150, 180), (110, 175), (189, 180)):
        assert tuple(pixels[y, x]) == GREEN, (x, y)
    assert not pixels[140, 109].any() and not pixels[140, 111].any()  # one pixel wide on 320
    for (x, y), colour in zip(POINTS[0].astype(int), (RED, RED, YELLOW, BLUE, BLUE), strict=True):
        assert tuple(pixels[y, x]) == colour
        assert tuple(pixels[y, x + 2]) == colour  # a fortieth of the box's 80 pixels
        assert not pixels[y, x + 4].any()
    label = pixels[80:100, 110:140].reshape(-1, 3)
    assert (label == GREEN).all(axis=1).sum() > 80
    assert (label == 0).all(axis=1).any()  # the digits, on green
    assert not pixels[200:].any()


def test_lines_are_wider_on_larger_pictures(tmp_path: Path) -> None:
    pixels = drawn(tmp_path / "a.png", side=1280)
    assert [bool(pixels[140, x].any()) for x in (109, 110, 113, 114)] == [False, True, True, False]


def test_the_score_stands_on_a_plate_that_is_a_line_wider_and_both_grow_with_the_picture(tmp_path: Path) -> None:
    heights = []
    for side, line in ((320, 1), (1280, 4)):
        above = drawn(tmp_path / "a.png", side=side, grey=255)[:100].astype(int)
        plate, ink = (above[:, :, 0] < 9).nonzero(), (above[:, :, 1] < 170).nonzero()
        for axis in (0, 1):
            margins = (ink[axis].min() - plate[axis].min(), plate[axis].max() - ink[axis].max())
            assert line <= margins[0] <= line + 3
            assert axis == 0 or line <= margins[1] <= line + 3  # below is the box's own line
        heights.append(np.ptp(ink[0]) + 1)
    assert heights[1] > 1.3 * heights[0]


def test_a_box_with_its_corners_exchanged_is_drawn_all_the_same(tmp_path: Path) -> None:
    pixels = drawn(tmp_path / "a.png", box=(190, 180, 110, 100))
    assert tuple(pixels[140, 110]) == tuple(pixels[140, 190]) == GREEN


def test_a_drawing_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be written"):
        drawn(tmp_path / "none" / "a.png")
