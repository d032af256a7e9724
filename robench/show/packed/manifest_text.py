"""A published manifest as text: cards, threats and machines stand as they are; cells, their shared
inputs and training curves are squeezed into one block.

The block is `zstd`, JSON of `cells`, of `inputs` and of the `history` of every seed, model by
model, compressed with Zstandard and written in base64; and `bytes`, its length before that. The
seal of a manifest covers what the block says, not how it is squeezed. A manifest without a block is
read as it stands.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

BLOCK, LENGTH = "zstd", "bytes"
INSIDE = ("cells", "inputs")
LEVEL = 19
ROOM, RATIO = 2**26, 100
"""Bytes that a block may take unpacked, and beside them for each of its own: a small file may
unpack to any size."""


def as_text(manifest: Mapping[str, Any]) -> str:
    """JSON with a line for each model and threat, so that versions can be compared."""
    histories = [
        [seed.get("history") or [] for seed in model["seeds"]] for model in manifest["models"]
    ]
    inside = {key: manifest[key] for key in INSIDE if key in manifest}
    models = [
        {**model, "seeds": [_without_history(seed) for seed in model["seeds"]]}
        for model in manifest["models"]
    ]
    rest = {key: value for key, value in manifest.items() if key not in INSIDE}
    block = _squeezed({**inside, "history": histories})
    lines = []
    for key, value in sorted({**rest, "models": models, **block}.items()):
        text = "[\n" + ",\n".join(map(_json, value)) + "\n]" if isinstance(value, list) else ""
        lines.append(f"{_json(key)}:{text or _json(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def opened(manifest: dict[str, Any]) -> dict[str, Any]:
    """What `as_text` was given, of what its text says; a manifest without a block as it is.

    Raises ValueError, or what comes of a stranger's values, for a block that `as_text` does not
    make.
    """
    if BLOCK not in manifest:
        return manifest
    rest = {key: value for key, value in manifest.items() if key not in (BLOCK, LENGTH)}
    data, length = base64.b64decode(manifest[BLOCK], validate=True), manifest[LENGTH]
    if not 0 < length <= ROOM + RATIO * len(data):
        raise ValueError(f"a block of {len(data)} bytes that unpack to {length}")
    text = pa.Codec(BLOCK).decompress(data, decompressed_size=length, asbytes=True)
    inside = json.loads(text)
    for model, histories in zip(rest["models"], inside.pop("history"), strict=True):
        for seed, history in zip(model["seeds"], histories, strict=True):
            if history:
                seed["history"] = history
    return {**rest, **{key: inside[key] for key in INSIDE if key in inside}}


def _without_history(seed: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in seed.items() if key != "history" or not value}


def _squeezed(inside: Mapping[str, Any]) -> dict[str, Any]:
    text = _json(inside).encode()
    data = pa.Codec(BLOCK, LEVEL).compress(text, asbytes=True)
    return {BLOCK: base64.b64encode(data).decode(), LENGTH: len(text)}


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
