"""What shows that a stored file is whole: seals, digests of rows and of tensors, and no pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from robench.digest import canonical, digest, digest_bytes

SEAL = "seal"
PICKLES = (b"\x80", b"PK\x03\x04", b"\x1f\x8b")
"""What pickles begin with: protocol 2 and later, torch.save's zip file, gzip."""


def rows_digest(rows: pa.Table) -> str:
    """SHA-256 over the columns' names, nulls and values, whatever the file's encoding of them."""
    parts: list[bytes] = []
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        parts.append(name.encode())
        if len(column):
            parts += _values(column.combine_chunks() if column.num_chunks != 1 else column.chunk(0))
    return digest_bytes(*parts)


def _values(array: pa.Array) -> list[bytes]:
    kind, missing = array.type, array.null_count
    if pa.types.is_list(kind):
        lengths = array.value_lengths()
        lengths = lengths.fill_null(-1) if missing else lengths
        return [lengths.to_numpy().astype(np.int64).tobytes(), *_values(array.flatten())]
    if pa.types.is_binary(kind) or pa.types.is_string(kind):
        return [repr(array.to_pylist()).encode()]
    if missing == len(array):  # as in every column of costs where there was no attack
        nulls, values = np.ones(len(array), bool), np.zeros(len(array), kind.to_pandas_dtype())
    elif missing:
        nulls = array.is_null().to_numpy(zero_copy_only=False)
        values = array.fill_null(pa.scalar(0).cast(kind)).to_numpy(zero_copy_only=False)
    else:
        nulls = np.zeros(len(array), bool)
        values = array.to_numpy(zero_copy_only=False)
    return [np.packbits(nulls).tobytes(), np.ascontiguousarray(values).tobytes()]


def sealed(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """`metadata` with a digest over all of it, so that no changed byte goes unnoticed."""
    return {**metadata, SEAL: digest({"what": "seal", "metadata": metadata})}


def unsealed(metadata: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError when the seal does not fit; files of before there were seals have none."""
    seal = metadata.pop(SEAL, None)
    if seal is not None and seal != digest({"what": "seal", "metadata": metadata}):
        raise ValueError("its metadata does not match its seal")
    return metadata


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
