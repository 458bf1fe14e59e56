"""Function names of an ELF library: which function an address lies in."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import MeasurementError

ELF64_LITTLE = b"\x7fELF\x02\x01"
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
SYMBOL_TABLE, FUNCTION = 2, 2


class Function(NamedTuple):
    """A function of a library: its offset from where the library is loaded, its bytes, and the linker's name for it."""

    offset: int
    size: int
    name: str


class Functions:
    """The functions of one library, by address."""

    def __init__(self, functions: Iterator[Function]) -> None:
        self.all = sorted(functions)
        self._offsets = [function.offset for function in self.all]

    def at(self, offset: int) -> str | None:
        """The name of the function that holds `offset`, if there is one."""
        index = bisect.bisect_right(self._offsets, offset) - 1
        if index < 0:
            return None
        function = self.all[index]
        return function.name if offset < function.offset + max(function.size, 1) else None


def read_functions(library: Path) -> Functions:
    """Read the symbol table of a 64-bit little-endian ELF file.

    Raises `MeasurementError` when the file is none or has been stripped of the names of its functions.
    """
    data = library.read_bytes()
    if not data.startswith(ELF64_LITTLE):
        raise MeasurementError(f"{library} is not a 64-bit library; make the ARM64 user space again")
    try:
        functions = Functions(_functions(data))
    except (struct.error, IndexError, ValueError) as error:
        raise MeasurementError(f"{library} is damaged ({error}); make the ARM64 user space again") from error
    if not functions.all:
        raise MeasurementError(f"{library} names no functions, so its kernels cannot be identified; use LiteRT 2.3.0")
    return functions


def _functions(data: bytes) -> Iterator[Function]:
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [SECTION.unpack_from(data, table + index * size) for index in range(count)]
    for _, kind, _, _, offset, length, link, _, _, _ in sections:
        if kind != SYMBOL_TABLE:
            continue
        names = sections[link][4]
        for name, info, _, _, value, extent in SYMBOL.iter_unpack(data[offset : offset + length]):
            if info & 0xF == FUNCTION and value:
                yield Function(value, extent, data[names + name : data.index(b"\0", names + name)].decode("ascii"))
