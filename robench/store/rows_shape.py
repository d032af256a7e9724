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
        found = table.schema.field(name).type if name in table.column_names else "absent"
        if found != kind or table.column(name).null_count:
            raise RobenchError(f"{where}: column {name} is {found}, not {kind} without gaps")
    if "proved" in table.column_names and table.schema.field("proved").type != PROVED:
        found = table.schema.field("proved").type
        raise RobenchError(f"{where}: column proved is {found}, not {PROVED}")
    for name in (RADIUS, CLEAR):
        if name in table.column_names:
            column = table.column(name)
            if column.type != PROVED or not np.all(column.drop_null().to_numpy() >= 0):
                raise RobenchError(f"{where}: column {name} is no distance")
    for name, kind in OF_LISTS.items():
        if name in table.column_names and table.schema.field(name).type != kind:
            found = table.schema.field(name).type
            raise RobenchError(f"{where}: column {name} is {found}, not {kind}")
    if REACHED in table.column_names:
        if AIMS not in table.column_names:
            raise RobenchError(f"{where}: columns {AIMS} and {REACHED} do not go together")
        lengths = [table.column(name).combine_chunks().value_lengths() for name in OF_LISTS]
        if not lengths[0].equals(lengths[1]):
            raise RobenchError(f"{where}: columns {AIMS} and {REACHED} do not go together")
    for name in ("correct", "proved", REACHED):
        values = table.column(name).combine_chunks() if name in table.column_names else pa.array([])
        if name == REACHED and len(values):
            values = values.flatten()
        values = values.drop_null().to_numpy(zero_copy_only=False)
        if not np.all((np.asarray(values) >= 0) & (np.asarray(values) <= 1)):
            raise RobenchError(f"{where}: column {name} is not in [0, 1]")
