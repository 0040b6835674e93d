"""HDF5 metadata with its checksums made true again, so that a fuzzer gets behind them."""

import struct
from collections.abc import Iterator

_MASK = 0xFFFFFFFF


def resealed(data: bytes) -> bytes:
    """The bytes of a shard after damage, with every checksum of its metadata computed again."""
    out = bytearray(data)
    for start, end in _blocks(data):
        if 0 <= start < end <= len(data) - 4:
            struct.pack_into("<I", out, end, lookup3(bytes(out[start:end])))
    return bytes(out)


def _blocks(data: bytes) -> Iterator[tuple[int, int]]:
    """Where each block of metadata starts, and where its checksum stands."""
    yield 0, 44  # the superblock, versions 2 and 3
    for at in _places(data, b"OHDR"):
        yield at, _end_of_header(data, at)
    for at in _places(data, b"FAHD"):
        yield at, at + 24
    for at in _places(data, b"FADB"):
        header = int.from_bytes(data[at + 6 : at + 14], "little")
        count = int.from_bytes(data[header + 8 : header + 16], "little")
        size = data[header + 6] if header + 6 < len(data) else 0
        yield at, at + 14 + count * size


def _places(data: bytes, mark: bytes) -> Iterator[int]:
    at = data.find(mark)
    while at >= 0:
        yield at
        at = data.find(mark, at + 1)


def _end_of_header(data: bytes, at: int) -> int:
    flags = data[at + 5] if at + 5 < len(data) else 0
    place = at + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    return place + width + int.from_bytes(data[place : place + width], "little")


def lookup3(data: bytes) -> int:
    """Bob Jenkins' hash of that name, by which HDF5 guards its metadata."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    if not data:
        return c
    whole = (len(data) - 1) // 12 * 12
    for at in range(0, whole, 12):
        x, y, z = struct.unpack_from("<III", data, at)
        a, b, c = _mix((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)
    x, y, z = struct.unpack("<III", data[whole:].ljust(12, b"\0"))
    return _final((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)


def _turned(value: int, by: int) -> int:
    return (value << by | value >> (32 - by)) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for by in (4, 6, 8, 16, 19, 4):
        # One step of the six, and the three change places.
        a = (a - c) & _MASK ^ _turned(c, by)
        c = (c + b) & _MASK
        a, b, c = b, c, a
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    for by in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _turned(b, by)) & _MASK
        a, b, c = b, c, a
    return b
