"""Files are told by their content: pictures from text, videos from pictures; what is left out is said."""

from __future__ import annotations

import io
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from retinaface_edge.runtime import ImageError
from retinaface_edge.runtime.io.file_kinds import is_container, picture_format
from retinaface_edge.runtime.io.frame_source import is_video
from retinaface_edge.runtime.io.images import read_image
from retinaface_edge.runtime.io.picture_files import picture_files

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def encoded(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
def test_a_picture_is_known_by_what_pillow_writes(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    content = encoded(kind)
    assert picture_format(content[:256]) == kind
    assert kind == "JPEG" or not is_container(content[:256])


@pytest.mark.parametrize(
    "head",
    [b"", b"BM", b"BMW is a car, and this is a text about it.", b"RIFF\x10\0\0\0WAVEfmt ", b"RIFFtextWEBPtext", b"II*"],
)
def test_what_only_begins_like_a_picture_is_none(head: bytes) -> None:
    assert picture_format(head) is None


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_heic_is_a_picture_and_no_video(brand: bytes) -> None:
    head = b"\0\0\0\x1cftyp" + brand + b"\0\0\0\0mif1heicmiaf"
    assert picture_format(head) == "HEIF"
    assert not is_container(head)
    movie = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + b"avif"  # after the box, where no brand is
    assert picture_format(movie) is None
    assert is_container(movie)


def test_heic_without_its_plug_in_says_what_to_install_and_is_read_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match="HEIC, which needs a plug-in; run: pip install pillow-heif"):
        read_image(path)

    from PIL import ImageFile

    class Decoder(ImageFile.ImageFile):
        """Stands for the plug-in: the same name of the format and the same way to register."""

        format = "HEIF"

        def _open(self) -> None:
            self._mode, self._size = "RGB", (3, 2)

        def load(self) -> None:  # type: ignore[override]
            self.im = Image.new("RGB", (3, 2), "red").im

    plug_in = types.ModuleType("pillow_heif")
    plug_in.register_heif_opener = lambda: Image.register_open("HEIF", Decoder)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pillow_heif", plug_in)
    try:
        assert read_image(path).tolist() == [[[0, 0, 255]] * 3] * 2
    finally:
        Image.OPEN.pop("HEIF", None)
        Image.ID.remove("HEIF")


def test_a_jpeg_may_lack_its_end_and_no_pixels(tmp_path: Path) -> None:
    path, whole = tmp_path / "a.jpg", encoded("JPEG", quality=95)
    path.write_bytes(whole)
    expected = read_image(path)
    for missing in (1, 2):
        path.write_bytes(whole[:-missing])
        np.testing.assert_array_equal(read_image(path), expected)
    for missing in (8, 40, len(whole) // 2):
        path.write_bytes(whole[:-missing])
        with pytest.raises(ImageError, match="cannot be read as a picture"):
            read_image(path)


def test_a_folder_gives_pictures_of_any_name_and_says_what_it_left_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "photo").write_bytes(encoded("PNG"))
    (tmp_path / "b.text").write_bytes(encoded("WEBP"))
    (tmp_path / "BMW.txt").write_text("BMW is a car, and this is a text about it.")
    (tmp_path / "torn.jpg").write_bytes(b"")
    files = picture_files([tmp_path])
    assert files.pictures == (tmp_path / "b.text", tmp_path / "in" / "photo")
    assert files.skipped_text == f"skipped, not pictures: {tmp_path / 'BMW.txt'}, {tmp_path / 'torn.jpg'}"
    kept = picture_files([tmp_path], keep_damaged=True)
    assert kept.pictures == (tmp_path / "b.text", tmp_path / "in" / "photo", tmp_path / "torn.jpg")
    assert kept.skipped_text == f"skipped, not a picture: {tmp_path / 'BMW.txt'}"


def test_what_cannot_be_read_is_said_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from retinaface_edge.runtime.io import picture_files as module

    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    (tmp_path / "b.png").write_bytes(encoded("PNG"))
    real = module.open_file

    def refusing(path: Path, most: int) -> object:
        if path.name == "b.png":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, most)

    monkeypatch.setattr(module, "open_file", refusing)
    files = picture_files([tmp_path])
    assert files.pictures == (tmp_path / "a.png",)
    assert files.skipped_text == f"skipped, not a picture: {tmp_path / 'b.png'} (Permission denied)"
    monkeypatch.setattr(os, "scandir", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(ImageError, match=r"cannot be read \(Permission denied\)"):
        picture_files([tmp_path])


def test_a_video_without_an_ending_is_one(tmp_path: Path) -> None:
    import cv2

    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48))
    for _ in range(3):
        writer.write(PIXELS)
    writer.release()
    (tmp_path / "a.avi").rename(tmp_path / "clip")
    assert is_video(str(tmp_path / "clip"))
    (tmp_path / "photo").write_bytes(encoded("JPEG"))
    (tmp_path / "text").write_text("G is a letter")
    assert not is_video(str(tmp_path / "photo"))
    assert not is_video(str(tmp_path / "text"))
