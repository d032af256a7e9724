"""The rows of many cells in one table that says each thing once: what published folders hold.

A cell's images and labels are left out where they are those of the cell before it; shares of right
draws, where the answers give them. Answers are a bit for each draw, set where it was right
(`right`, the first draw in the highest bit of the first byte), and the classes of those that were
wrong (`wrong`): one after the other for all cells of a run, image by image, then cell by cell, then
draw by draw, in the first row of the run. A run is cells that follow each other, with as many
images and draws each; classes are bytes where all of them fit, else little-endian int16.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

PREDICTIONS, CORRECT = "predictions", "correct"
RIGHT, WRONG, DRAWS = "right", "wrong", "draws"
AS_BEFORE = ("image", "label")
Array = NDArray[Any]
Place = tuple[int, int]
"""First row of a cell, and the first after it."""


def pack_rows(table: pa.Table, places: Sequence[Place], runs: Sequence[object]) -> pa.Table:
    """`runs`: for each cell what all cells of a run share; another value begins another run."""
    if not places:
        return table
    lists = table.column(PREDICTIONS).combine_chunks()
    draws, classes = lists.value_lengths().to_numpy(), lists.flatten().to_numpy()
    labels, shares = table.column("label").to_numpy(), table.column(CORRECT).to_numpy()
    right, wrong, follows = list[bytes](), list[bytes | None]([None] * len(table)), []
    run: list[tuple[Array, Array]] = []
    at, key, first = 0, None, 0
    for (start, end), what in zip(places, runs, strict=True):
        count = int(draws[start:end].sum())
        answers = classes[at : at + count].reshape(end - start, -1)
        at += count
        hits = answers == labels[start:end, None]
        right += [line.tobytes() for line in np.packbits(hits, axis=1)]
        follows.append(np.array_equal(_share(hits), shares[start:end]))
        if run and (what, answers.shape) != key:
            wrong[first], first, run = _wrong(run), start, []
        key = (what, answers.shape)
        run.append((answers, hits))
    wrong[first] = _wrong(run)
    for name in AS_BEFORE:
        said = table.column(name).to_numpy()
        cells = [said[start:end] for start, end in places]
        same = [False, *(np.array_equal(before, own) for before, own in pairwise(cells))]
        table = _without(table, name, places, same)
    table = _without(table, CORRECT, places, follows).drop_columns([PREDICTIONS])
    table = table.append_column(DRAWS, pa.array(draws, pa.int16()))
    table = table.append_column(RIGHT, pa.array(right, pa.binary()))
    return table.append_column(WRONG, pa.array(wrong, pa.binary()))


def unpack_rows(table: pa.Table, places: Sequence[Place]) -> pa.Table:
    """The rows as they were, with `predictions` behind the columns that are said as they are.

    Raises ValueError for what `pack_rows` does not make.
    """
    if not places:
        return table
    for name in AS_BEFORE:
        values = _filled(table.column(name), places)
        table = table.set_column(table.column_names.index(name), name, values)
    labels, draws = table.column("label").to_numpy(), table.column(DRAWS).to_numpy()
    right, wrong = table.column(RIGHT).combine_chunks(), table.column(WRONG).combine_chunks()
    starts = [n for n, (start, _) in enumerate(places) if wrong[start].is_valid]
    if starts[:1] != [0] or wrong.null_count != len(wrong) - len(starts):
        raise ValueError(f"column {WRONG} begins no run where a cell begins")
    found, shares = [], []
    for number, end in zip(starts, [*starts[1:], len(places)], strict=True):
        cells = [_bits(right, draws, *place) for place in places[number:end]]
        if len({cell.shape for cell in cells}) > 1:
            raise ValueError(f"column {WRONG} begins no run where images or draws are others")
        hits = np.stack(cells)
        said = np.stack([labels[slice(*place)] for place in places[number:end]])
        answers = np.repeat(said[:, :, None], hits.shape[2], axis=2)
        by_image = answers.transpose(1, 0, 2)
        by_image[~hits.transpose(1, 0, 2)] = _classes(wrong[places[number][0]].as_py(), ~hits)
        found.append(answers.astype(np.int16).ravel())
        shares.append(_share(hits).ravel())
    offsets = np.concatenate([[0], np.cumsum(draws, dtype=np.int32)])
    lists = pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()),
        pa.array(np.concatenate(found)),
        pa.list_(pa.field("element", pa.int16())),
    )
    correct = pc.coalesce(table.column(CORRECT), pa.array(np.concatenate(shares), pa.float32()))
    table = table.set_column(table.column_names.index(CORRECT), CORRECT, correct)
    return table.drop_columns([DRAWS, RIGHT, WRONG]).append_column(PREDICTIONS, lists)


def _share(hits: Array) -> Array:
    """As scoring takes it, to the bit."""
    return np.asarray(hits.mean(axis=-1, dtype=np.float32))


def _wrong(run: Sequence[tuple[Array, Array]]) -> bytes:
    answers, hits = (np.stack(part).transpose(1, 0, 2) for part in zip(*run, strict=True))
    classes = answers[~hits]
    fits = not classes.size or (classes.min() >= 0 and classes.max() < 256)
    return bytes(classes.astype(np.uint8 if fits else "<i2").tobytes())


def _classes(data: bytes, missing: Array) -> Array:
    count = int(missing.sum())
    if len(data) not in (count, 2 * count):
        raise ValueError(f"column {WRONG} holds {len(data)} bytes for {count} wrong answers")
    return np.frombuffer(data, np.uint8 if len(data) == count else "<i2")


def _bits(right: pa.Array, draws: Array, start: int, end: int) -> Array:
    """(images, draws) of a cell."""
    count, lines = int(draws[start]), right[start:end].to_pylist()
    size = -(-count // 8)
    if (draws[start:end] != count).any() or any(len(line) != size for line in lines):
        raise ValueError(f"columns {DRAWS} and {RIGHT} do not go together")
    packed = np.frombuffer(b"".join(lines), np.uint8).reshape(end - start, size)
    return np.unpackbits(packed, axis=1, count=count).astype(bool)


def _without(table: pa.Table, name: str, places: Sequence[Place], gone: Sequence[bool]) -> pa.Table:
    """`table` with nulls in a column for some of its cells."""
    lengths = [end - start for start, end in places]
    column = pc.if_else(pa.array(np.repeat(gone, lengths)), None, table.column(name))
    return table.set_column(table.column_names.index(name), name, column)


def _filled(column: pa.ChunkedArray, places: Sequence[Place]) -> pa.ChunkedArray:
    """Where a cell says nothing, what the cell before it says."""
    cells, before = [], None
    for start, end in places:
        own = column.slice(start, end - start)
        if own.null_count == len(own) and before is not None and len(before) == len(own):
            own = before
        if own.null_count:
            raise ValueError("columns image and label have gaps")
        cells.append(own)
        before = own
    return pa.chunked_array([chunk for own in cells for chunk in own.chunks], column.type)
