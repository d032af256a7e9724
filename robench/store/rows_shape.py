"""What the rows of a cell must look like for a page to be made of them: asked of what others
wrote."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from robench.errors import RobenchError

COLUMNS = {
    "image": pa.int32(),
    "label": pa.int16(),
    "predictions": pa.list_(pa.field("element", pa.int16())),
    "correct": pa.float32(),
}
"""What all pages need."""
AIMS, REACHED = "aims", "reached"
"""Of the rows of targeted threats: the classes that an image was to be taken for, and of each the
share of draws that answered it; lists, empty where an image has no such class."""
OF_LISTS = {
    name: pa.list_(pa.field("element", kind))
    for name, kind in ((AIMS, pa.int16()), (REACHED, pa.float32()))
}
PROVED = pa.float32()
"""Of the column `proved`, null but where the threat is a proof; pages of before it lack it."""
RADIUS, CLEAR = "radius", "clear"
"""Of the rows of searches for the nearest wrong image: its distance, and where the search is a
proof a radius within which there is none; null where none was found, or not looked for."""


def check_rows(table: pa.Table, where: str) -> None:
    """Raises RobenchError where a column that all pages need is not as a cell's is."""
    if not len(table):  # no cell has an outcome
        return
    for name, kind in COLUMNS.items():
        there = table.schema.field(name).type if name in table.column_names else "absent"
        if there != kind or table.column(name).null_count:
            raise RobenchError(f"{where}: column {name} is {there}, not {kind} without gaps")
    named = ("correct", "proved", RADIUS, CLEAR, *OF_LISTS)
    columns = {n: table.column(n).combine_chunks() for n in named if n in table.column_names}
    for name, kind in {"proved": PROVED, **OF_LISTS}.items():
        if name in columns and columns[name].type != kind:
            raise RobenchError(f"{where}: column {name} is {columns[name].type}, not {kind}")
    for name in [name for name in (RADIUS, CLEAR) if name in columns]:
        column = columns[name]
        if column.type != PROVED or not np.all(column.drop_null().to_numpy() >= 0):
            raise RobenchError(f"{where}: column {name} is no distance")
    lengths = [columns[name].value_lengths() for name in OF_LISTS if name in columns]
    if REACHED in columns and not (len(lengths) == 2 and lengths[0].equals(lengths[1])):
        raise RobenchError(f"{where}: columns {AIMS} and {REACHED} do not go together")
    for name in [name for name in ("correct", "proved", REACHED) if name in columns]:
        column = columns[name].flatten() if name == REACHED else columns[name]
        values = column.drop_null().to_numpy(zero_copy_only=False)
        if not np.all((values >= 0) & (values <= 1)):
            raise RobenchError(f"{where}: column {name} is not in [0, 1]")
