"""What shows that a stored file is whole: seals, digests of rows and of tensors, and no pickle."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy

from robench.digest import canonical, digest, digest_bytes
from robench.store import columns
from robench.store.files import Content
from robench.store.parquet_footer import unpacked_sizes

SEAL = "seal"
SEALS = 4
"""The schema number in all seals. It stays when that of identities is raised: what was sealed
before is read on."""
ROOM, ROW = 2**26, 2**12
"""Bytes that a table may take unpacked, and beside them for each of its rows: pictures of a few,
and thousands of draws."""
PICKLES = (b"\x80", b"PK\x03\x04", b"\x1f\x8b")
"""What pickles begin with: protocol 2 and later, torch.save's zip file, gzip."""


def rows_digest(rows: pa.Table) -> str:
    """SHA-256 over the columns' names, types, nulls and values, whatever the file's encoding of
    them. A column without any value says nothing and is left out."""
    parts: list[bytes] = [b"names, types and values"]
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        if column.null_count < len(column):
            parts += [name.encode(), _type(column.type).encode(), *_values(columns.whole(column))]
    return digest_bytes(*parts)


def rows_match(rows: pa.Table, said: str) -> bool:
    """Whether `said` is the digest of `rows`, as it is taken today or was before it covered types.

    Then it covered columns without values, which a table of many cells gives to those that had none
    of that name.
    """
    if said == rows_digest(rows):
        return True
    while said != _untyped_digest(rows) and said != _printed_digest(rows):
        if not rows.num_columns or rows.columns[-1].null_count < len(rows):
            return False
        rows = rows.select(rows.column_names[:-1])
    return True


def _untyped_digest(rows: pa.Table) -> str:
    parts: list[bytes] = []
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        parts += [name.encode(), *(_values(columns.whole(column)) if len(column) else [])]
    return digest_bytes(*parts)


def _printed_digest(rows: pa.Table) -> str:
    """As it was first."""
    columns = ((name, rows.column(name).to_pylist()) for name in rows.column_names)
    return digest_bytes(*(repr(column).encode() for column in columns))


def _type(kind: pa.DataType) -> str:
    """Without the name that a file gives to what a list holds."""
    return f"list<{_type(kind.value_type)}>" if pa.types.is_list(kind) else str(kind)


def _values(array: pa.Array) -> list[bytes]:
    kind = array.type
    if pa.types.is_list(kind):
        lengths = columns.values(array.value_lengths()).astype(np.int64)
        lengths[columns.missing(array)] = -1
        return [lengths.tobytes(), *_values(array.flatten())]
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return [repr(array.to_pylist()).encode()]
    return [np.packbits(columns.missing(array)).tobytes(), columns.values(array).tobytes()]


def sealed(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """`metadata` with a digest over all of it, so that no changed byte goes unnoticed."""
    return {**metadata, SEAL: _seal(metadata)}


def unsealed(metadata: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError when the seal does not fit; files of before there were seals have none."""
    seal = metadata.pop(SEAL, None)
    if seal is not None and seal != _seal(metadata):
        raise ValueError("its content does not match its seal")
    return metadata


def _seal(metadata: Mapping[str, Any]) -> str:
    return digest({"what": "seal", "metadata": metadata}, SEALS)


@dataclass(frozen=True)
class Framework:
    """How tensors of a library lie in a safetensors file.

    save: the library's way, which says how files are laid out. one: a tensor of one number of the
    same type. memory: of a tensor whose numbers lie there row after row, its bytes.
    """

    save: Callable[..., bytes]
    one: Callable[[Any], Any]
    memory: Callable[[Any], bytes | memoryview]


def _memory(array: np.ndarray) -> bytes | memoryview:
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8).data if flat.size else b""


NUMPY = Framework(safetensors.numpy.save, lambda array: np.zeros(1, array.dtype), _memory)


def sealed_tensors(
    tensors: Mapping[str, Any], about: Mapping[str, Any], framework: Framework = NUMPY
) -> tuple[str, Content]:
    """The digest of the tensors, and a safetensors file of them with what is said about them: the
    header, and the tensors where they lie, without a copy, which not to change is the caller's."""
    samples = framework.save({name: framework.one(tensor) for name, tensor in tensors.items()})
    layout = tensors_header(samples)
    header: dict[str, Any] = {}
    pieces: list[bytes | memoryview] = []
    end = 0
    for name in sorted(layout, key=lambda name: tuple(layout[name]["data_offsets"])):
        pieces.append(framework.memory(tensors[name]))
        start, end = end, end + len(pieces[-1])
        shape = list(tensors[name].shape)
        header[name] = {
            "dtype": layout[name]["dtype"],
            "shape": shape,
            "data_offsets": [start, end],
        }
    digest_ = digest_bytes(canonical(header).encode(), pieces)  # as of the file: tensors_digest
    said = {"robench": as_written(about, digest_)}
    text = json.dumps({"__metadata__": said, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # numbers begin at whole words
    return digest_, [len(text).to_bytes(8, "little") + text, *pieces]


def as_written(about: Mapping[str, Any], tensors: str) -> str:
    """What a safetensors file's metadata say of its tensors, whose digest that is."""
    return canonical(sealed({**about, "tensors": tensors}))


def check_room(file: pq.FileMetaData, data: bytes, rows: int) -> None:
    """Raises ValueError, before anything is unpacked, for a Parquet file that takes more memory
    than so many rows can need: a small file may unpack to any size.

    Args:
        data: the whole file.
    """
    if file.num_rows > rows:
        raise ValueError(f"{file.num_rows} rows where there can be {rows}")
    room, taken = ROOM + rows * ROW, sum(unpacked_sizes(data))
    if taken > room:
        raise ValueError(f"{rows} rows that unpack to {taken} bytes, more than {room}")


def refuse_pickle(data: bytes) -> None:
    """Raises ValueError, saying why, when `data` looks like a pickle or an archive of one."""
    if data.startswith(PICKLES) and data[8:9] != b"{":  # where a safetensors header begins
        raise ValueError(
            "a pickle, as torch.save writes it: loading one runs whatever code it holds; "
            "weights are safetensors only (safetensors.torch.save_file)"
        )


def tensors_header(data: bytes) -> dict[str, Any]:
    """Of a safetensors file. Raises ValueError."""
    refuse_pickle(data)
    size = int.from_bytes(data[:8], "little")
    if size > len(data) - 8:
        raise ValueError(f"{len(data)} bytes are less than its header says: truncated")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    return header


def tensors_digest(data: bytes) -> str:
    """SHA-256 of a safetensors file without its metadata: names, types, shapes, values."""
    size = int.from_bytes(data[:8], "little")
    header = tensors_header(data)
    header.pop("__metadata__", None)
    return digest_bytes(canonical(header).encode(), memoryview(data)[8 + size :])
