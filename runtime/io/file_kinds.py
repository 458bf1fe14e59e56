"""What a file is, judged by its first bytes: a picture of a format, a container of video, or neither."""

from __future__ import annotations

HEAD_BYTES = 256
"""How many first bytes the judgement needs at most."""

_STARTS = (
    ("JPEG", b"\xff\xd8\xff"),
    ("PNG", b"\x89PNG\r\n\x1a\n"),
    ("GIF", b"GIF87a"),
    ("GIF", b"GIF89a"),
    ("TIFF", b"II*\x00"),
    ("TIFF", b"MM\x00*"),
)
_BITMAP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
"""Sizes of the header that follows the first 14 bytes of a BMP. Text that begins with "BM" has none of them."""
_AVIF_BRANDS, _HEIF_BRANDS = (b"avif", b"avis"), (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_CONTAINER_STARTS = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"\x00\x00\x01\xba",  # MPEG
    b"\x00\x00\x01\xb3",
    b"\x00\x00\x00\x01\x67",  # H.264 without a container: it begins with a sequence parameter set
    b"\x00\x00\x00\x01\x27",
    b"\x00\x00\x00\x01\x09",  # or with a delimiter
    b"\x00\x00\x00\x01\x40\x01",  # H.265 likewise
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # WMV
    b"FLV\x01",
    b"OggS",
    b"\xff\xd8\xff",  # MJPEG without a container
)
_MOVIE_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")


def picture_format(head: bytes) -> str | None:
    """The format of the picture that begins so, by Pillow's name; None when it is none that `read_image` reads."""
    for name, start in _STARTS:
        if head.startswith(start):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP" and head[12:15] == b"VP8":
        return "WEBP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BITMAP_HEADERS:
        return "BMP"
    brands = _brands(head)
    if any(brand in brands for brand in _AVIF_BRANDS):
        return "AVIF"
    return "HEIF" if any(brand in brands for brand in _HEIF_BRANDS) else None


def is_container(head: bytes) -> bool:
    """Whether a video that FFmpeg may open begins so. Lists of other files, which it also reads, do not."""
    return (
        (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or (head[4:8] in _MOVIE_ATOMS and picture_format(head) is None)
        or head.startswith(_CONTAINER_STARTS)
        or (head[:1] == b"G" and head[188:189] == b"G")  # MPEG transport stream: a packet has 188 bytes
    )


def _brands(head: bytes) -> list[bytes]:
    """The major and the compatible brands of an ISO media file (ISO/IEC 14496-12, `ftyp`); none of another file."""
    if head[4:8] != b"ftyp":
        return []
    box = head[: max(16, int.from_bytes(head[:4], "big"))]
    return [box[8:12], *(box[place : place + 4] for place in range(16, len(box) - 3, 4))]
