"""Named arrays in NumPy's `.npz` format, checked by their headers before memory is allocated."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

ARRAYS = 1 << 12
"""Most arrays in one file."""


def packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The arrays as `.npz`."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpacked(content: bytes, most: int) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz`, none of objects, together at most `most` bytes unpacked; other members as uint8 (n,).

    Raises `ValueError` when they are more, or when the bytes are something else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if len(entries) > ARRAYS or sum(entry.file_size for entry in entries) > most:
                raise ValueError(f"it unpacks to more than {most:,} bytes or {ARRAYS:,} arrays")
            return {
                entry.filename.removesuffix(".npy"): _member(entry.filename, archive.read(entry)) for entry in entries
            }
    except (OSError, EOFError, KeyError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"it holds no arrays ({error})") from error


def _member(name: str, data: bytes) -> NDArray[Any]:
    return _array(data) if name.endswith(".npy") else np.frombuffer(data, np.uint8).copy()


def _array(data: bytes) -> NDArray[Any]:
    """One array, whose header must promise exactly the bytes that follow."""
    file = io.BytesIO(data)
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it has an array of format {version}")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        shape, fortran, dtype = read_header(file)
    except Exception as error:  # it evaluates a literal, and what tokenisers raise is varied
        raise ValueError(f"it has an array whose header cannot be read ({error})") from error
    values = data[file.tell() :]
    if dtype.hasobject or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(values):
        raise ValueError(f"it has an array of {dtype} {shape} in {len(values):,} bytes")
    return np.frombuffer(values, dtype).reshape(shape, order="F" if fortran else "C").copy()
