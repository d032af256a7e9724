"""Is a whole store as it was written, and what in it does no report need? Nothing is changed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from robench.digest import SCHEMA
from robench.store.belongs import misnamed
from robench.store.manifest import done
from robench.store.store import FILES, Kind, Store, as_manifest, as_outcome, as_tensors, key_of

Facts = dict[str, Any]
LEFT = {
    "damaged": "set aside as damaged",
    "scratch": "of trainings that were stopped",
    "batches": "of cells that were stopped",
    "failures": "of work that failed",
    "seen": "that say what was found as it was written",
    "contradictions": "of others that have other content than those of the same digest here",
    "pulled": "that say what was pulled from where",
    "leases": "that say what a run is at, or was when it was killed",
}


@dataclass
class Checked:
    """What a store holds. Sizes are in bytes."""

    sound: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Files that are what their name says, by kind."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Name of a file -> what is wrong with it."""
    missing: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Report -> files that its last run made and that are gone."""
    unreachable: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    """Kind -> files that the last run of no report needs, and their sizes."""
    left: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    """What is no result -> files and their sizes."""
    reports: int = 0

    def lines(self, every: bool = False) -> Iterator[str]:
        """In words. `every`: with the name of each file that no report needs."""
        for name, why in sorted(self.damaged.items()):
            yield f"damaged: {name}: {why}"
        for report, names in sorted(self.missing.items()):
            yield f"missing: {len(names)} of report {report}: {names[0]}, ...; run it again"
        for kind, found in self.unreachable.items():
            yield f"no report needs: {len(found)} {kind}, {_size(sum(found.values()))}"
            yield from (f"  {name}" for name in sorted(found) if every)
        for what, found in self.left.items():
            yield f"{what}: {len(found)} files, {_size(sum(found.values()))}"
            yield from (f"  {name}" for name in sorted(found) if every)
        there = [kind for kind in FILES if self.sound[kind] or kind != "images"]
        kinds = ", ".join(f"{self.sound[kind]} {kind}" for kind in there)
        yield f"sound: {kinds}, {self.reports} reports; damaged: {len(self.damaged)} files"


def check_store(store: Store) -> Checked:
    """Read every file of a store and hold it against its name, its digest and its seal.

    What the last run of any report names counts as needed, and so do the weights that shared inputs
    were crafted on. Raises RobenchError for a store that cannot be read.
    """
    checked, facts = Checked(), dict[Kind, dict[str, Facts]]()
    sizes = store.files.sizes()
    for kind, place in FILES.items():
        facts[kind], suffix = {}, place.rpartition("}")[2]
        read = _outcome if kind == "cells" else _tensors
        for name in [name for name in sizes if name.startswith(f"{kind}/") and suffix in name]:
            key = name.rpartition("/")[2].removesuffix(suffix)
            if name.endswith(".tmp"):
                continue
            try:
                facts[kind][key] = {"file": name, **read(store.files.read(name), key)}
                checked.sound[kind] += 1
            except FileNotFoundError:  # a run that goes on has set it aside
                continue
            except Exception as error:  # whatever a parser makes of broken bytes
                checked.damaged[name] = str(error) or type(error).__name__
    needed = _needed(store, [name for name in sizes if name.startswith("runs/")], facts, checked)
    for kind, known in facts.items():
        for key, about in known.items():
            if key not in needed[kind]:
                checked.unreachable[kind][about["file"]] = sizes[about["file"]]
    for name, size in sizes.items():
        folder = name.partition("/")[0]
        if name.endswith(".tmp"):
            checked.left["written half by a run that was killed"][name] = size
        elif folder in LEFT:
            checked.left[LEFT[folder]][name] = size
    return checked


def _needed(
    store: Store, runs: list[str], facts: dict[Kind, dict[str, Facts]], checked: Checked
) -> dict[Kind, set[str]]:
    """Names by kind that any manifest names; damaged and missing ones are noted in `checked`."""
    needed: dict[Kind, set[str]] = {kind: set() for kind in FILES}
    for name in runs:
        if not name.endswith(".json"):
            continue
        try:
            manifest = as_manifest(json.loads(store.files.read(name)))
            for wrong in misnamed(manifest):
                raise ValueError(f"{wrong}: its digest is not its own")
            used = done(manifest)
        except Exception as error:
            checked.damaged[name] = str(error) or type(error).__name__
            continue
        checked.reports += 1
        report = name.removeprefix("runs/").removesuffix(".json")
        broken = {key_of(part) for part in checked.damaged}
        for kind, keys in used.items():
            needed[kind] |= keys.keys()
            gone = sorted(keys.keys() - facts[kind].keys() - broken)
            if gone:
                checked.missing[report] += [f"{kind}/{key}" for key in gone]
    needed["images"] |= needed["cells"] & {*facts["images"]}  # also where a later run kept none
    # What inputs and cells of before name only in their own identities.
    needed["inputs"] |= {facts["cells"][c]["inputs"] for c in needed["cells"] & {*facts["cells"]}}
    crafted = {facts["inputs"][key]["surrogate"] for key in needed["inputs"] & {*facts["inputs"]}}
    needed["models"] |= {k for k, about in facts["models"].items() if about["tensors"] in crafted}
    return needed


def _tensors(data: bytes, key: str) -> Facts:
    _, metadata = of_any_schema(lambda schema: as_tensors(data, key, schema))
    surrogate = metadata["identity"].get("surrogate") or {}
    return {"tensors": metadata["tensors"], "surrogate": surrogate.get("weights")}


def _outcome(data: bytes, key: str) -> Facts:
    outcome = of_any_schema(lambda schema: as_outcome(data, key, schema))
    threat = outcome.identity.get("threat")
    return {"inputs": threat.get("inputs") if isinstance(threat, dict) else None}


def of_any_schema(read: Callable[[int], Any]) -> Any:
    """What was written when identities had another schema number is whole, though no run asks for
    it any more. Raises what reading it by today's does."""
    for schema in range(SCHEMA, 1, -1):
        try:
            return read(schema)
        except ValueError as error:
            if schema == SCHEMA:
                first = error
    raise first


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
