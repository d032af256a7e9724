"""What the files of a store are called and what they hold: asked of what others wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

from safetensors import deserialize

from robench.digest import SCHEMA
from robench.errors import RobenchError, check_name, cut, printable
from robench.store.belongs import misnamed
from robench.store.fsck import of_any_schema
from robench.store.manifest import check_shape, done
from robench.store.rows_shape import check_rows
from robench.store.store import FILES, Kind, as_manifest, as_outcome, as_tensors, file_of

FOLDERS = (*FILES, "contradictions", "runs")
"""In this order: a manifest comes when all that it names is there."""
RESULT = re.compile(
    rf"(?:contradictions/)?({'|'.join(FILES)})/(?:../)?([0-9a-f]{{64}})(?:\.([0-9a-f]{{12}}))?\.\w+"
)
"""What names of files have in them, those of manifests aside: kind, digest, and of what contradicts
another file the beginning of the digest of its content."""
RUNS = "runs"
LARGEST = {"cells": 2**27, RUNS: 2**28}
"""Bytes of a file of a kind; more is refused unread. Tensors may be as large as memory holds."""


@dataclass(frozen=True)
class StoreFile:
    """A file of a store, by what its name says."""

    kind: Kind | Literal["runs"]
    key: str
    """Digest of what determines it; of a manifest the report."""
    content: str = ""
    """Of what contradicts another file: the first digits of the digest of its rows or tensors."""

    @cached_property
    def name(self) -> str:
        if self.kind == "runs":
            return f"{RUNS}/{self.key}.json"
        name = file_of(self.kind, self.key)
        suffix = name.rpartition(".")[2]
        against = f"contradictions/{self.kind}/{self.key}.{self.content}.{suffix}"
        return against if self.content else name


def item_of(name: str) -> StoreFile | None:
    """None: a store has no such file."""
    if match := RESULT.fullmatch(name):
        item = StoreFile(cast("Kind", match[1]), match[2], match[3] or "")
        return item if item.name == name else None
    if name.startswith(f"{RUNS}/") and name.endswith(".json"):
        report = name.removeprefix(f"{RUNS}/").removesuffix(".json")
        with suppress(RobenchError):
            return StoreFile("runs", check_name(report, "report"))
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


def covers(manifest: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a manifest says of all models and cells that `other` says are done that they are, and
    so."""
    ours, theirs = done(manifest), done(other)
    kinds: tuple[Kind, ...] = ("models", "cells")
    return all(theirs[kind].items() <= ours[kind].items() for kind in kinds)


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
