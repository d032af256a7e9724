"""What makes two pieces of work the same: canonical JSON, hashed with SHA-256.

An identity is a plain dictionary. It holds what determines the numbers and nothing else:

- in: weights, every field of the threat (defaults written out), versions of the plugins (code from
  outside robench counts by all that it reaches, reach.py), the data set's fingerprint, the slice,
  seeds, draws, the batch size where results depend on it, `SCHEMA`.
- out, because the same work must be found again: device, host, time, thread count, library
  versions, cost. They are provenance, stored beside the result.
- out, because they do not change a number: names and descriptions of cards, published figures, the
  report that asked, the order of keys, the path of a workspace.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

SCHEMA = 4  # raise it when the framework itself changes what a cell's numbers mean

Identity = dict[str, Any]


class Written(dict[str, Any]):
    """A part that many identities share, which is not changed any more: its canonical text is made
    once."""

    @cached_property
    def text(self) -> str:
        return _encode(_plain(self))


def canonical(value: Any) -> str:
    """`value` as JSON: keys sorted, no spaces, tuples as lists, infinities as strings."""
    if type(value) is Written:
        return value.text
    if type(value) is dict and any(type(item) is Written for item in value.values()):
        parts = [f"{_quoted(str(key))}:{_short(value[key])}" for key in sorted(value, key=str)]
        return "{" + ",".join(parts) + "}"
    return _encode(_plain(value))


def _short(value: Any) -> str:
    """`canonical`, for most values at the top of an identity without any detour."""
    kind = type(value)
    if kind is str:
        return _quoted(value)
    if kind is int or (kind is list and all(type(item) is int for item in value)):
        return str(value).replace(" ", "")
    return canonical(value)


_quoted = json.encoder.encode_basestring_ascii
_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
).encode


def _plain(value: Any) -> Any:
    if type(value) in _AS_THEY_ARE:
        return value
    if isinstance(value, dict | Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (str, int, float)):
        return value
    raise TypeError(f"an identity holds plain values only, not {type(value).__name__}: {value!r}")


_AS_THEY_ARE = frozenset({str, int, bool, type(None)})


def digest(identity: Mapping[str, Any], schema: int | None = None) -> str:
    """SHA-256 of `identity` with the schema number, as 64 hexadecimal digits.

    Args:
        schema: the number of whoever wrote it; None: today's.
    """
    number = SCHEMA if schema is None else schema
    return hashlib.sha256(canonical({"schema": number, **identity}).encode()).hexdigest()


def digest_bytes(*parts: bytes | memoryview | Sequence[bytes | memoryview]) -> str:
    """SHA-256 of the parts, each preceded by its length; one may lie in several pieces."""
    sha = hashlib.sha256()
    for part in parts:
        lying = [part] if isinstance(part, (bytes, memoryview)) else part
        pieces = [memoryview(piece).cast("B") for piece in lying]
        sha.update(sum(map(len, pieces)).to_bytes(8, "little"))
        for piece in pieces:
            sha.update(piece)
    return sha.hexdigest()


def derived_seed(*parts: Any) -> int:
    """A 63-bit seed from anything canonical: independent streams for (seed, image, kind, ...)."""
    return int(hashlib.sha256(canonical(list(parts)).encode()).hexdigest()[:16], 16) >> 1
