"""Columns made by their buffers are those that pyarrow makes itself, which imports pandas."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from robench.store import columns
from robench.store.seal import rows_digest, rows_match

KINDS = (np.int16, np.int64, np.float32, np.bool_)


def some(kind: Any, rows: int) -> np.ndarray:
    return np.random.default_rng(rows).integers(0, 2, rows).astype(kind)


@pytest.mark.parametrize("rows", [0, 1, 9, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_go_to_a_column_and_back(kind: Any, rows: int) -> None:
    given = some(kind, rows)
    for none in (None, np.zeros(rows, bool), np.arange(rows) % 3 == 1, np.ones(rows, bool)):
        made = columns.numbers(given, none)
        there = pa.array(given, mask=none)
        assert made.equals(there)
        made.validate(full=True)
        nulls = np.zeros(rows, bool) if none is None else none
        assert columns.missing(made).tolist() == nulls.tolist()
        assert columns.values(made).tolist() == np.where(nulls, 0, given).astype(kind).tolist()
        assert columns.values(made).dtype == kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_a_column_has_its_own_numbers(kind: Any) -> None:
    given, none = some(kind, 40), np.arange(40) % 7 == 0
    part = columns.numbers(given, none)[11:30]
    assert columns.missing(part).tolist() == none[11:30].tolist()
    assert columns.values(part).tolist() == np.where(none, 0, given).astype(kind)[11:30].tolist()
    pieces = pa.chunked_array([columns.numbers(given, none), part])
    assert len(columns.values(pieces)) == 59


def test_lists_and_bytes_are_those_of_pyarrow() -> None:
    rows = [np.array([1, 2]), np.array([], int), np.array([3])]
    made = columns.lists(rows, np.int16)
    assert made.equals(pa.array([row.tolist() for row in rows], pa.list_(pa.int16())))
    assert columns.lists([], np.int16).equals(pa.array([], pa.list_(pa.int16())))
    for held in ([], [b"ab", b"", b"c"], [b"ab", None, b"c"], [None, None]):
        made = columns.binaries(held)
        made.validate(full=True)
        assert made.equals(pa.array(held, pa.binary()))


@pytest.mark.parametrize(
    "odd",
    [
        pa.array(["a", "b", "a"]).dictionary_encode(),
        pa.array([{"a": 1}, {"a": None}, None]),
        pa.array([[1], [2, 3], None], pa.large_list(pa.int16())),
        pa.array([b"a", b"b", None], pa.binary(1)),
        pa.array([1, None, 3], pa.date32()),
        pa.array([["a"], [None], []], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
        pa.nulls(3),
    ],
)
def test_columns_that_no_cell_has_match_nothing(odd: pa.Array) -> None:
    """A stranger's file may have them: it is refused for its digest."""
    rows = pa.table({"odd": odd, "image": pa.array([0, 1, 2])})
    assert not rows_match(rows, "x")
    assert rows_match(rows, rows_digest(rows))
    if odd.null_count < 3:
        assert rows_digest(rows[:1]) != rows_digest(rows[1:2])


def test_a_cell_is_made_and_read_without_pandas() -> None:
    """It takes 30 MiB of each process, and a third of a second."""
    script = """
import sys, tempfile
import numpy as np, torch
from robench.data.base import Part
from robench.make.scoring import score_slice, with_costs
from robench.networks.mlp import MLP
from robench.store.store import Outcome, Store, as_outcome
from robench.digest import digest
network = MLP((1, 2, 2), 3).eval()
part = Part(np.random.rand(5, 1, 2, 2).astype(np.float32), np.arange(5) % 3)
rows, _ = score_slice(network, part.images, part, noisy=False, draws=2, seed=0, batch_size=3,
                      device=torch.device("cpu"))
outcome = Outcome(with_costs(rows, None), {"what": "cell", "slice": [0, 5]}, {})
store = Store(tempfile.mkdtemp())
name = digest(outcome.identity)
store.write_cell(name, outcome)
assert store.read_cell(name).digest == outcome.digest
print([name for name in ("pandas", "scipy", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
