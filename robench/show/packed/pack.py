"""How a report is published: its rows and its manifest without what no page is made of.

The store keeps every outcome whole. A published folder leaves out the loss of each image and the
pictures that no page shows, and says costs (passes, distances) and ties as means over a cell's
images. What the rows of a cell are then is sealed with the manifest, so that nothing in the folder
is believed unseen. Rows say each thing once (packed_rows.py), cells are said column by column.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from robench.digest import canonical
from robench.show.packed.rows import pack_rows
from robench.store.outcomes import Tables
from robench.store.seal import rows_digest

SCHEMA = 5
"""Of a published manifest. The store's is that of describe.py."""
LEFT_OUT = ("loss",)
"""Columns that no page, diagnostic or test is made of."""
MEANS = ("distance", "queries", "gradients", "tie")
"""Columns of which only the mean over a cell's images is shown."""
PICTURE = "input"
EMPTY: tuple[Any, ...] = ({}, [])
"""What a cell need not say: readers take it for granted."""
OF_ROWS = ("rows", "means", "loss_trace", "loss_runs")
"""What a cell says of its rows and of how they came to be, differently here and in the store."""
SAID_ONCE = ("status", "environment", "probabilities", "activity", "input_shape", "error")
"""Of a cell: what most of them say in the same words, said once for all of them."""
HALF = 32
"""Hexadecimal digits of a digest that say whether rows are those of their cell."""
ABSENT: dict[str, Any] = {}
"""In a column, of a cell that does not say it; no cell says this of anything."""
PARTS = ("activity", "means")
"""Of a cell: numbers by name."""
RUNS = 8
"""Of an attack, whose losses by step a page draws."""
LONG = 30
"""Steps of an attack from which diagnostics look at its loss."""


def lean(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest as it is published, without what its rows say of themselves: the same whether it
    comes from the store or from a published folder. The digest of a cell's rows in the store is
    left out where no kept images are held against it."""
    return {
        **manifest,
        "schema": SCHEMA,
        "models": [
            {**model, "seeds": [_packed_seed(*one) for one in enumerate(model["seeds"])]}
            for model in manifest["models"]
        ],
        "cells": [
            {
                key: _short(cell[key])
                for key in cell
                if cell[key] not in EMPTY and key not in OF_ROWS
                if key != "outcome" or "images" in cell
            }
            for cell in manifest["cells"]
        ],
    }


def published(
    manifest: Mapping[str, Any], rows: Mapping[str, pa.Table], pictured: Mapping[str, int]
) -> tuple[dict[str, Any], pa.Table]:
    """The manifest and the rows of all cells in one table, each cell once, with the column `cell`:
    its digest. In the manifest's order, whichever was done first.

    Args:
        pictured: of how many images of a cell, by its digest, a page shows pictures; others are
            left out, and so are the losses of later runs.
    """
    packed, digests, means = Tables(), dict[str, str](), dict[str, dict[str, float]]()
    runs = list[tuple[str, int]]()
    for cell in manifest["cells"]:
        name = str(cell["digest"])
        if name not in rows or name in digests:
            continue
        means[name] = cell_means(rows[name], cell)
        kept = _kept(rows[name], pictured.get(name, 0))
        packed.add(name, kept)
        digests[name] = digest_of(kept)[:HALF]
        runs.append((cell["model"], cell["seed"]))
    made, judged = lean(manifest), _judged_by_loss(manifest)
    for cell, whole in zip(made["cells"], manifest["cells"], strict=True):
        name = str(whole["digest"])
        if whole["status"] == "done" and name in digests:
            cell["rows"] = digests[name]
            steps = judged.get(whole["threat"], 0)
            said = {"means": means[name], **_losses(whole, name in pictured, steps)}
            cell.update({key: value for key, value in said.items() if value})
    _say_once(made)
    made["cells"] = _by_column(made["cells"])
    lengths = packed.lengths()
    numbers = np.repeat(np.arange(len(packed), dtype=np.int32), lengths)
    names = pa.DictionaryArray.from_arrays(numbers, pa.array(list(packed), pa.string()))
    ends = np.cumsum(lengths, dtype=int).tolist()
    places = list(zip([0, *ends], ends, strict=False))
    return made, pack_rows(packed.whole(), places, runs).append_column("cell", names)


def digest_of(rows: pa.Table) -> str:
    """Of the rows of a cell as they are published, in whatever order their columns come."""
    return rows_digest(rows.select(sorted(rows.column_names)))


def rows_match(rows: pa.Table, said: str) -> bool:
    """Whether `said` is the digest of the rows of a cell as they are published."""
    return len(said) >= HALF and digest_of(rows)[: len(said)] == said


def cell_means(rows: pa.Table, cell: Mapping[str, Any]) -> dict[str, float]:
    """Mean over a cell's images of each of MEANS that was measured: of its rows where they have it,
    else as its published manifest says."""
    means = dict(cell.get("means") or {})
    for name in MEANS:
        mean = pc.mean(rows.column(name)).as_py() if name in rows.column_names else None
        if mean is not None:
            means[name] = float(f"{mean:.6g}")
    return means


def unpacked(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest, published in any schema, as pages and diagnostics read it."""
    if isinstance(manifest.get("cells"), dict):
        manifest["cells"] = _by_row(manifest["cells"])
    for name, value in manifest.pop("cells_say", {}).items():
        for cell in manifest["cells"]:
            cell.setdefault(name, value)
    for model in manifest["models"]:
        for seed in model["seeds"]:
            history = seed.get("history")
            if isinstance(history, dict):
                seed["history"] = _by_row(history)
    return manifest


def _judged_by_loss(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Threats whose loss diagnostics may look at, white-box attacks in a ball that counts: steps of
    one run, 0 where the attack does not say."""
    attacks = [threat for threat in manifest["threats"] if threat["kind"] == "attack"]
    balls = {(t["norm"], t["eps"]) for t in attacks if t["role"] in ("attack", "diagnostic")}
    fields = {threat["name"]: threat["fields"].get("attack") or {} for threat in attacks}
    steps = {name: said.get("steps", said.get("max_iter")) for name, said in fields.items()}
    return {
        threat["name"]: int(steps[threat["name"]] or 0)
        for threat in attacks
        if threat["access"] == "white-box" and (threat["norm"], threat["eps"]) in balls
    }


def _losses(cell: Mapping[str, Any], whole: bool, steps: int) -> dict[str, Any]:
    """The losses by step of an attack: all of them where a page draws them; of its first run where
    diagnostics look at so many steps; else none."""
    trace, runs = cell.get("loss_trace") or [], cell.get("loss_runs") or []
    if len(runs) > RUNS:
        trace, runs = trace[: runs[RUNS]], runs[:RUNS]
    if not whole:
        trace, runs = trace[: runs[1] if len(runs) > 1 else None], []
        trace = trace if LONG <= steps == len(trace) else []
    return {"loss_trace": trace, "loss_runs": runs}


def _say_once(manifest: dict[str, Any]) -> None:
    """Takes out of the cells what most of them say alike: `unpacked` puts it in again."""
    said = manifest["cells_say"] = {}
    for name in SAID_ONCE:
        texts = Counter(canonical(cell[name]) for cell in manifest["cells"] if name in cell)
        if texts.total() == len(manifest["cells"]) > 0:
            said[name] = json.loads(texts.most_common(1)[0][0])
            for cell in manifest["cells"]:
                if cell[name] == said[name]:
                    del cell[name]


def _by_column(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each key's values, in the order of the rows; of PARTS again by key; of words that come again
    the words once, and which of them it is."""
    made: dict[str, Any] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key, ABSENT) for row in rows]
        words = dict.fromkeys(value for value in values if isinstance(value, str))
        if key in PARTS and all(isinstance(value, Mapping) for value in values):
            made[key] = {"parts": _by_column(values)}
        elif 2 * len(words) <= len(values) and all(isinstance(value, str) for value in values):
            place = {word: number for number, word in enumerate(words)}
            made[key] = {"words": list(words), "of": [place[word] for word in values]}
        else:
            made[key] = values
    return made


def _by_row(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What `_by_column` was given."""
    values: dict[str, list[Any]] = {}
    for key, said in columns.items():
        if isinstance(said, list):
            values[key] = said
        elif "parts" in said:
            values[key] = _by_row(said["parts"])
        else:
            values[key] = [said["words"][number] for number in said["of"]]
    return [
        {key: value for key, value in zip(values, row, strict=True) if value != ABSENT}
        for row in zip(*values.values(), strict=True)
    ]


def _packed_seed(place: int, seed: Mapping[str, Any]) -> dict[str, Any]:
    """With its training curves column by column, to six digits. Ways of the weights are drawn of
    the first seed alone."""
    history: Sequence[Mapping[str, Any]] = seed.get("history") or []
    if not history:
        return dict(seed)
    kept = [
        {
            name: _short(value)
            for name, value in row.items()
            if place == 0 or not name.startswith("weight/")
        }
        for row in history
    ]
    return {**seed, "history": _by_column(kept)}


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _short(item) for key, item in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _kept(rows: pa.Table, pictures: int) -> pa.Table:
    """The columns that are published, named as Parquet reads them: the same bytes both ways."""
    gone = {*LEFT_OUT, *MEANS, *(() if pictures else (PICTURE,))}
    rows = rows.drop_columns([name for name in rows.column_names if name in gone])
    if PICTURE in rows.column_names:
        seen = pa.array(np.arange(len(rows)) < pictures)
        some = pc.if_else(seen, rows.column(PICTURE), pa.scalar(None, pa.binary()))
        rows = rows.set_column(rows.column_names.index(PICTURE), PICTURE, some)
    fields = [
        pa.field(f.name, pa.list_(pa.field("element", f.type.value_type)))
        if pa.types.is_list(f.type)
        else f
        for f in rows.schema
    ]
    return rows.cast(pa.schema(fields))
