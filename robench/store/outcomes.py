"""Many outcomes at hand in little memory: the rows of many cells are kept as one table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from robench.store.store import Outcome

TOGETHER = 512
"""Cells whose rows are packed into one table. A table of its own costs some twenty kilobytes beside
what it holds, which of a hundred images is four."""


class Tables(Mapping[str, pa.Table]):
    """Rows by the digest of their cell, in the order in which they came."""

    def __init__(self) -> None:
        self._packed: list[pa.Table] = []
        self._loose: list[pa.Table] = []
        self._rows = 0  # of all that is loose
        self._places: dict[str, tuple[int, int, int]] = {}
        """Number of the packed table, first row, rows."""

    @classmethod
    def of(cls, table: pa.Table, cells: Mapping[str, tuple[int, int]]) -> Tables:
        """What lies in one table already. `cells`: first row and number of rows of each."""
        tables = cls()
        tables._packed.append(table)
        tables._places = {name: (0, *place) for name, place in cells.items()}
        return tables

    def add(self, name: str, table: pa.Table) -> None:
        if self._loose and (len(self._loose) == TOGETHER or table.schema != self._loose[0].schema):
            self._pack()
        self._places[name] = (len(self._packed), self._rows, len(table))
        self._loose.append(table)
        self._rows += len(table)

    def _pack(self) -> None:
        if self._loose:
            self._packed.append(pa.concat_tables(self._loose).combine_chunks())
            self._loose, self._rows = [], 0

    def whole(self) -> pa.Table:
        """All rows in one table."""
        self._pack()
        if not self._packed:
            return pa.table({})
        return pa.concat_tables(self._packed, promote_options="permissive")

    def lengths(self) -> list[int]:
        """Rows of each cell."""
        return [rows for _, _, rows in self._places.values()]

    def __getitem__(self, name: str) -> pa.Table:
        number, start, rows = self._places[name]
        self._pack()
        return self._packed[number].slice(start, rows)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Outcomes:
    """Of each outcome what a page needs, by the digest of its cell: all but the identity, which
    that digest stands for."""

    def __init__(self) -> None:
        self.rows = Tables()
        self.digests: dict[str, str] = {}
        """Digest of the rows."""
        self.provenance: dict[str, dict[str, Any]] = {}
        self._environments: dict[str, dict[str, Any]] = {}

    def add(self, name: str, outcome: Outcome) -> None:
        noted = dict(outcome.provenance)
        if "environment" in noted:  # most cells were made in the same one
            text = json.dumps(noted["environment"], sort_keys=True)
            noted["environment"] = self._environments.setdefault(text, noted["environment"])
        self.rows.add(name, outcome.rows)
        self.digests[name] = outcome.digest
        self.provenance[name] = noted

    def __contains__(self, name: object) -> bool:
        return name in self.digests
