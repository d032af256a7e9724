"""What the files of a store are called and what they hold: asked of what others wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from safetensors import deserialize

from robench.digest import SCHEMA
from robench.errors import RobenchError, check_name, cut, printable
from robench.store.belongs import misnamed
from robench.store.fsck import of_any_schema
from robench.store.manifest import check_shape
from robench.store.rows_shape import check_rows
from robench.store.store import as_manifest, as_outcome, as_tensors

FOLDERS = ("models", "inputs", "cells", "images", "contradictions", "runs")
"""In this order: a manifest comes when all that it names is there."""
DIGEST = "[0-9a-f]{64}"
FILES = re.compile(
    rf"(?P<kind>models|inputs)/(?P<key>{DIGEST})\.safetensors"
    rf"|(?P<cells>cells)/(?P<first>[0-9a-f]{{2}})/(?P<cell>(?P=first)[0-9a-f]{{62}})\.parquet"
    rf"|(?P<images>images)/(?P<begin>[0-9a-f]{{2}})/(?P<of>(?P=begin)[0-9a-f]{{62}})\.safetensors"
    rf"|contradictions/(?P<against>models|inputs|cells|images)/(?P<same>{DIGEST})"
    r"\.(?P<content>[0-9a-f]{12})\.(?P<suffix>safetensors|parquet)"
)
"""What files of a store are called, those of manifests aside."""
RUNS = "runs"
LARGEST = {"cells": 2**27, RUNS: 2**28}
"""Bytes of a file of a kind; more is refused unread. Tensors may be as large as memory holds."""


@dataclass(frozen=True)
class StoreFile:
    """A file of a store, by what its name says."""

    name: str
    kind: str
    key: str
    """Digest of what determines it; of a manifest the report."""
    content: str = ""
    """Of what contradicts another file: the first digits of the digest of its rows or tensors."""


def item_of(name: str) -> StoreFile | None:
    """None: a store has no such file."""
    if found := FILES.fullmatch(name):
        parts = found.groupdict()
        kind = parts["kind"] or parts["cells"] or parts["images"] or parts["against"]
        key = parts["key"] or parts["cell"] or parts["of"] or parts["same"]
        if parts["against"] and (parts["suffix"] == "parquet") != (kind == "cells"):
            return None
        return StoreFile(name, kind, key, parts["content"] or "")
    if name.startswith(f"{RUNS}/") and name.endswith(".json"):
        report = name.removeprefix(f"{RUNS}/").removesuffix(".json")
        with suppress(RobenchError):
            return StoreFile(name, RUNS, check_name(report, "report"))
    return None


@dataclass(frozen=True)
class Said:
    """What a file says of itself, once it has been found to be whole."""

    content: str
    """Digest of its rows or tensors."""
    provenance: Mapping[str, Any]

    @property
    def made(self) -> str:
        """When and with what, in words."""
        about = self.provenance.get("environment")
        about = about if isinstance(about, Mapping) else {}
        parts = [self.provenance.get("finished"), about.get("processor"), about.get("capability")]
        parts.append(f"torch {about.get('torch', 'unknown')}")
        return cut(printable(", ".join(str(part) for part in parts if part)), 200)


def named(manifest: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of what a manifest says is done: models -> weights, cells -> digest of the rows."""
    seeds = [seed for model in manifest["models"] for seed in model["seeds"]]
    models = {seed["digest"]: seed.get("weights") for seed in seeds if seed["status"] == "done"}
    done = [cell for cell in manifest["cells"] if cell["status"] == "done"]
    return models, {cell["digest"]: cell.get("outcome") for cell in done}


def covers(manifest: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a manifest says of everything that `other` says is done that it is, and so."""
    return all(
        all(mine.get(key) == value for key, value in theirs.items())
        for mine, theirs in zip(named(manifest), named(other), strict=True)
    )


def checked_manifest(data: bytes, report: str) -> dict[str, Any]:
    """A manifest that a page can be made of. Raises some Exception for what is not whole."""
    manifest = as_manifest(json.loads(data))
    check_shape(manifest, RUNS)
    for wrong in misnamed(manifest):
        raise ValueError(f"{wrong}: its digest is not its own")
    if manifest["report"]["name"] != report:
        raise ValueError(f"it is that of report {manifest['report']['name']!r}")
    return manifest


def examined(item: StoreFile, data: bytes) -> Said:
    """What a file says of itself. Raises some Exception where it is not what its name says, in any
    schema of identities up to today's."""
    try:
        if item.kind == "cells":
            outcome = of_any_schema(lambda schema: as_outcome(data, item.key, schema))
            check_rows(outcome.rows, "its rows")
            start, stop = outcome.identity.get("slice", (0, len(outcome.rows)))
            if len(outcome.rows) != stop - start:
                raise ValueError(f"{len(outcome.rows)} rows, not {stop - start}")
            said = Said(outcome.digest, outcome.provenance)
        else:
            _, metadata = of_any_schema(lambda schema: as_tensors(data, item.key, schema))
            deserialize(data)  # type: ignore[no-untyped-call]  # its header describes what follows
            said = Said(metadata["tensors"], metadata.get("provenance", {}))
    except ValueError as error:
        if str(error) != "its content does not match its digest":
            raise
        raise ValueError(f"{error}; or robench of after schema {SCHEMA} wrote it") from None
    if not said.content.startswith(item.content):
        raise ValueError("its content is not that of its name")
    return said
