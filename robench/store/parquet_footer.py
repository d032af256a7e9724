"""How large the columns of a Parquet file say they are, read from its footer without trusting it.

pyarrow's accessors of a column chunk end the process where a footer is damaged in some places; its
reader of tables raises. So what is asked before anything is unpacked is read here: the footer is a
struct in Thrift's compact protocol (parquet-format, FileMetaData).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

TRAILER = 8  # length of the footer in four bytes, then PAR1
DEEPEST = 12
ROW_GROUPS, COLUMNS, CHUNK, TYPE, NUM_VALUES, UNCOMPRESSED = 4, 1, 3, 1, 5, 6
BYTE_ARRAY = 6


def unpacked_sizes(data: bytes) -> Iterator[int]:
    """Bytes that each column chunk of a Parquet file needs when it is unpacked, as the footer says.

    Raises ValueError or IndexError for a footer that is none.
    """
    length = int.from_bytes(data[-TRAILER:-4], "little")
    if length > len(data) - TRAILER:
        raise ValueError("its footer is longer than the file")
    footer, _ = _struct(data[len(data) - TRAILER - length : -TRAILER], 0, DEEPEST)
    for group in footer.get(ROW_GROUPS, ()):
        for column in group.get(COLUMNS, ()):
            chunk = column.get(CHUNK, {})
            width = 8 if chunk.get(TYPE) != BYTE_ARRAY else 1
            yield max(chunk.get(UNCOMPRESSED, 0), width * chunk.get(NUM_VALUES, 0))


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Field number -> value, and where the struct ends. Texts are left out."""
    if not depth:
        raise ValueError("its footer is nested too deeply")
    fields: dict[int, Any] = {}
    number = 0
    while kind := data[at]:
        at += 1
        if kind >> 4:
            number += kind >> 4
        else:
            number, at = _integer(data, at)
        kind &= 15
        if kind > 2:  # 1 and 2 are true and false, without anything that follows
            fields[number], at = _value(data, at, kind, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if 4 <= kind <= 6:
        return _integer(data, at)
    if kind == 8:
        length, at = _varint(data, at)
        return None, at + length
    if kind == 12:
        return _struct(data, at, depth - 1)
    if kind in (9, 10):
        size, kind = data[at] >> 4, data[at] & 15
        at += 1
        if size == 15:
            size, at = _varint(data, at)
        items = []
        for _ in range(size):  # each takes a byte at least
            item, at = (None, at + 1) if kind < 3 else _value(data, at, kind, depth)
            items.append(item)
        return items, at
    if kind in (3, 7):
        return None, at + (1 if kind == 3 else 8)
    raise ValueError(f"its footer holds a field of kind {kind}")


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("its footer holds a number of more than 64 bits")
