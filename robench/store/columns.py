"""Columns of rows, from numpy's arrays and back, by their buffers.

pyarrow's own ways (`pa.array`, `to_numpy`, `pa.scalar`, `take`) import pandas when they are first
used, wherever it is installed: 30 MiB and a third of a second for every process that makes cells,
and none of them needs it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def numbers(given: np.ndarray, none: np.ndarray | None = None) -> pa.Array:
    """A column of numbers or truth values, (n,). none: which of them are nulls, (n,) bool."""
    kind = pa.from_numpy_dtype(given.dtype)
    if none is not None and none.all():
        return pa.nulls(len(given), kind)
    there = None if none is None or not none.any() else _bits(~none)
    held = _bits(given) if pa.types.is_boolean(kind) else pa.py_buffer(np.ascontiguousarray(given))
    return pa.Array.from_buffers(kind, len(given), [there, held])


def lists(rows: Sequence[np.ndarray], kind: type[np.generic]) -> pa.Array:
    """A column with a list of numbers in each row."""
    ends = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    inside = np.concatenate(rows).astype(kind) if len(rows) else np.empty(0, kind)
    return pa.ListArray.from_arrays(numbers(ends), numbers(inside))


def binaries(rows: Sequence[bytes | None]) -> pa.Array:
    """A column with bytes in each row; None: null."""
    there = np.array([row is not None for row in rows], dtype=bool)
    held = [row or b"" for row in rows]
    ends = np.cumsum([0, *map(len, held)]).astype(np.int32)
    parts = [
        None if there.all() else _bits(there),
        pa.py_buffer(ends),
        pa.py_buffer(b"".join(held)),
    ]
    return pa.Array.from_buffers(pa.binary(), len(rows), parts)


def values(of: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """The numbers or truth values, (n,), of a column; 0 or False where there is none."""
    array = whole(of)
    kind, none = array.type.to_pandas_dtype(), missing(array)
    if none.all():
        return np.zeros(len(array), kind)
    held, part = array.buffers()[1], slice(array.offset, array.offset + len(array))
    if pa.types.is_boolean(array.type):
        found = _unpacked(held, part)
    else:
        found = np.frombuffer(held, kind)[part].copy()
    found[none] = 0
    return found


def missing(of: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Which rows of a column are nulls, (n,) bool."""
    array = whole(of)
    if not array.null_count:
        return np.zeros(len(array), bool)
    if array.null_count == len(array):
        return np.ones(len(array), bool)
    return ~_unpacked(array.buffers()[0], slice(array.offset, array.offset + len(array)))


def whole(of: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    if not isinstance(of, pa.ChunkedArray):
        return of
    return of.combine_chunks() if of.num_chunks != 1 else of.chunk(0)


def _bits(values: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))


def _unpacked(held: pa.Buffer, part: slice) -> np.ndarray:
    bits = np.unpackbits(np.frombuffer(held, np.uint8), bitorder="little", count=part.stop)
    return bits[part].astype(bool)
