"""Picture files become BGR frames, upright, whatever their kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinaface_edge.runtime.images import read_image

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
ORIENTATIONS = {
    1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1), 6: lambda p: np.rot90(p, 3), 7: lambda p: np.rot90(p, 2).swapaxes(0, 1),
    8: lambda p: np.rot90(p),
}  # fmt: skip
"""What EXIF's orientation has a viewer do with the stored pixels (TIFF 6.0, tag 274)."""


def test_channels_are_blue_green_red(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), PIXELS[:, :, ::-1])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_picture_is_upright(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[:, :, ::-1], ORIENTATIONS[orientation](PIXELS))


def test_grey_of_16_bits_keeps_its_upper_ones(tmp_path: Path) -> None:
    deep = PIXELS[:, :, 0].astype(np.uint16) * 256 + PIXELS[:, :, 1]
    Image.fromarray(deep).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.repeat(PIXELS[:, :, :1], 3, axis=2))
