"""The store: write-once, atomic, and never believed when a file is not what its name says."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from robench.digest import canonical, derived_seed, digest
from robench.errors import RobenchError
from robench.store.store import Damaged, Outcome, Store, rows_digest, tensors_digest

IDENTITY = {"what": "cell", "seed": 0}
CELL = digest(IDENTITY)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def outcome(correct: float = 1.0) -> Outcome:
    rows = pa.table(
        {
            "image": pa.array([0, 1], pa.int32()),
            "predictions": pa.array([[1, 2], [3, 4]], pa.list_(pa.int16())),
            "correct": pa.array([correct, 0.5], pa.float32()),
        }
    )
    return Outcome(rows, IDENTITY, {"seconds": 1.5})


def cell_file(store: Store) -> Path:
    return Path(store.url) / "cells" / CELL[:2] / f"{CELL}.parquet"


def test_a_cell_reads_back_as_it_was_written(store: Store) -> None:
    store.write_cell(CELL, outcome())
    read = store.read_cell(CELL)
    assert read.rows.equals(outcome().rows)
    assert read.identity == IDENTITY
    assert read.provenance == {"seconds": 1.5}
    assert read.digest == outcome().digest
    assert store.cells() == {CELL}


def test_a_finished_cell_is_never_written_again(store: Store) -> None:
    store.write_cell(CELL, outcome())
    before = cell_file(store).read_bytes()
    store.write_cell(CELL, outcome(0.0))
    assert cell_file(store).read_bytes() == before


def test_the_rows_digest_depends_on_values_only() -> None:
    assert rows_digest(outcome().rows) == rows_digest(outcome().rows)
    assert rows_digest(outcome(0.0).rows) != rows_digest(outcome().rows)


@pytest.mark.parametrize("damage", ["truncated", "zeroed", "empty", "swapped", "edited"])
def test_a_damaged_cell_is_set_aside(store: Store, damage: str) -> None:
    store.write_cell(CELL, outcome())
    path, data = cell_file(store), cell_file(store).read_bytes()
    if damage == "swapped":
        other = Store(Path(store.url).parent / "other")
        identity = {"what": "cell", "seed": 1}
        other.write_cell(digest(identity), Outcome(outcome().rows, identity, {}))
        data = (
            cell_file(other)
            .parent.parent.joinpath(digest(identity)[:2], f"{digest(identity)}.parquet")
            .read_bytes()
        )
    if damage == "edited":
        table = pq.read_table(path)
        column = pa.array([1.0, 1.0], pa.float32())
        pq.write_table(table.set_column(2, "correct", column), path)
        data = path.read_bytes()
    path.write_bytes(
        {"truncated": data[:-20], "zeroed": bytes(len(data)), "empty": b""}.get(damage, data)
    )
    with pytest.raises(Damaged, match="set aside"):
        store.read_cell(CELL)
    assert not store.has("cells", CELL)
    assert list((Path(store.url) / "damaged").iterdir())


def payload(seed: int = 0) -> tuple[str, bytes]:
    import numpy as np

    identity = {"what": "model", "seed": seed}
    tensors = {"weight": np.arange(4, dtype=np.float32)}
    metadata = {"identity": identity, "tensors": tensors_digest(safetensors.numpy.save(tensors))}
    return digest(identity), safetensors.numpy.save(tensors, {"robench": canonical(metadata)})


def test_weights_read_back_with_their_metadata(store: Store) -> None:
    name, data = payload()
    store.write_model(name, data)
    read, metadata = store.read_model(name)
    assert read == data
    assert metadata["identity"]["seed"] == 0


@pytest.mark.parametrize("damage", ["flipped", "truncated", "pickle", "other"])
def test_damaged_weights_are_set_aside(store: Store, damage: str) -> None:
    name, data = payload()
    bad = {
        "flipped": data[:-1] + bytes([data[-1] ^ 1]),
        "truncated": data[: len(data) // 2],
        "pickle": b"\x80\x04\x95" + data,
        "other": payload(1)[1],
    }[damage]
    store.write_model(name, bad)
    with pytest.raises(Damaged):
        store.read_model(name)
    assert not store.has("models", name)


def test_a_failure_is_forgotten_once_the_cell_is_done(store: Store) -> None:
    store.write_failure(CELL, {"task": "t", "error": "e"})
    assert store.read_failure(CELL) == {"task": "t", "error": "e"}
    store.write_cell(CELL, outcome())
    assert store.read_failure(CELL) is None


def test_nothing_half_written_is_ever_visible(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", cut)
    with pytest.raises(RobenchError, match="No space left on device; free space or choose"):
        store.write_cell(CELL, outcome())
    monkeypatch.undo()
    assert store.cells() == set()
    assert [path for path in Path(store.url).rglob("*") if path.is_file()] == []


def test_the_store_also_works_on_other_file_systems() -> None:
    store = Store("memory://robench-test")
    store.write_cell(CELL, outcome())
    assert store.read_cell(CELL).digest == outcome().digest


def test_digests_ignore_key_order_and_tell_values_apart() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": (1, 2), "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})
    assert digest({"a": float("inf")}) == digest({"a": "inf"})
    with pytest.raises(TypeError):
        digest({"a": object()})


def test_derived_seeds_are_stable_and_fit_a_generator() -> None:
    assert derived_seed("train", 0) == derived_seed("train", 0) != derived_seed("train", 1)
    assert 0 <= derived_seed("x") < 2**63
