"""What a Parquet footer says of its columns is read as pyarrow does it; a damaged one raises."""

from __future__ import annotations

import io
import random
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robench.store.parquet_footer import unpacked_sizes
from robench.store.seal import check_room


def written(**settings: object) -> bytes:
    table = pa.table(
        {
            "number": pa.array(range(500), pa.int32()),
            "draws": pa.array([[1, 2, 3]] * 500, pa.list_(pa.int16())),
            "name": ["cell"] * 500,
            "right": [True, False] * 250,
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, **settings)
    return sink.getvalue()


@pytest.mark.parametrize("settings", [{}, {"row_group_size": 9}, {"write_statistics": False}])
def test_sizes_are_those_that_pyarrow_reads(settings: dict[str, object]) -> None:
    data = written(**settings)
    footer = pq.ParquetFile(io.BytesIO(data)).metadata
    groups = [footer.row_group(group) for group in range(footer.num_row_groups)]
    chunks = [group.column(place) for group in groups for place in range(footer.num_columns)]
    wanted = [
        max(c.total_uncompressed_size, (1 if c.physical_type == "BYTE_ARRAY" else 8) * c.num_values)
        for c in chunks
    ]
    assert list(unpacked_sizes(data)) == wanted


def test_no_flipped_bit_of_a_footer_ends_the_process() -> None:
    """Some of them would, were pyarrow asked."""
    good, rng = written(), random.Random(0)
    for _ in range(2000):
        bad = bytearray(good)
        bad[rng.randrange(len(good) // 2, len(good))] ^= 1 << rng.randrange(8)
        with suppress(Exception):
            check_room(pq.ParquetFile(io.BytesIO(bytes(bad))).metadata, bytes(bad), 500)


@pytest.mark.parametrize("footer", [b"", b"\x1c" * 100, b"\x18" + b"\xff" * 10])
def test_a_footer_that_is_none_raises(footer: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        list(unpacked_sizes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"))
