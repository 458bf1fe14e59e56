"""Picture files become BGR frames, upright, whatever their kind."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinaface_edge.runtime import ImageError
from retinaface_edge.runtime.io import images
from retinaface_edge.runtime.io.images import read_image

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


@pytest.mark.parametrize("size", [(1, 5), (5, 1)])
def test_a_tracking_pixel_is_told_by_its_size_and_not_as_a_damaged_file(size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", size).save(tmp_path / "a.png")
    with pytest.raises(ImageError) as refused:
        read_image(tmp_path / "a.png")
    assert str(refused.value) == f"{tmp_path / 'a.png'} is {size[0]}x{size[1]} pixels: give a photograph"


def test_the_smallest_photograph_is_two_by_two(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[:2, :2]).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (2, 2, 3)


def test_a_picture_may_have_as_many_pixels_as_are_allowed_and_not_one_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 12 * 20)
    assert read_image(tmp_path / "a.png").shape == (12, 20, 3)
    monkeypatch.setattr(images, "MAX_PIXELS", 12 * 20 - 1)
    with pytest.raises(ImageError, match=r"a\.png has 20x12 pixels; at most 239 are accepted"):
        read_image(tmp_path / "a.png")


def test_without_pillow_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImageError, match="pip install pillow"):
        read_image(tmp_path / "a.png")


def test_a_jpeg_of_hundreds_of_scans_is_refused_and_a_progressive_one_is_read(tmp_path: Path) -> None:
    """Each scan costs a pass over the whole picture, and a few bytes."""
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path, progressive=True)
    assert read_image(path).shape == (64, 64, 3)
    content = path.read_bytes()
    last = content.rindex(b"\xff\xda")
    path.write_bytes(content[:-2] + content[last:-2] * 2000 + content[-2:])
    with pytest.raises(ImageError, match=r"a\.jpg is a JPEG of more than 100 scans"):
        read_image(path)
    with pytest.raises(ImageError, match="scans"):
        read_image(path, path.read_bytes())
