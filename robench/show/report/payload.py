"""What the script of a page needs, as deflated JSON: one record per model, shown when opened."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from robench.show import two_sided
from robench.show.diagnostics.finding import Verdict
from robench.show.leaderboard import CLEAN, SUMMARY, VOTES, column_name
from robench.show.packed.pack import RUNS
from robench.show.report.columns import roles
from robench.show.report.costs import COSTS
from robench.show.report.measurements import Measurements, by_class, measurements
from robench.show.report.pictures import Strip, examples
from robench.show.report.text import PAPERS, of_items, radius, shorten, towards
from robench.show.report.two_sided import record as ends_record
from robench.show.results import Model, Results, Threat, targeted
from robench.store.manifest import Seed, history_of

EPOCHS = 60  # points of a training curve that the page keeps
TILES = (8, 4)  # example images of a model; the second where there is no room for the first
MANY = 400_000
"""Bytes of example images, from which each model shows fewer of them."""
WORST_KINDS = 3  # corruptions shown among the example images
CLASSES = 40  # up to so many, a model's clean accuracy is given class by class
CARD_ORDER = ("description", "dataset", "network", "trainer", "seeds", "name")
CURVE_ORDER = ("epoch", "loss", "validation_accuracy")
TEXT = 700  # characters of a verdict's sentence
DIGEST_CELLS = 4000  # up to so many cells, the page names every cell's digest


def payload(
    results: Results, table: pd.DataFrame, verdicts: Mapping[str, Verdict] | None
) -> dict[str, Any]:
    """The record of every model, in the order of the table, and of every threat."""
    rows = [row for _, row in table.iterrows()]
    records = [_record(results, results.by_name[row["model"]], row) for row in rows]
    for record in records:
        if verdicts and record["name"] in verdicts:
            verdict = _of_items(verdicts[record["name"]], results.items)
            record["verdict"] = _changed(verdict, _clipped)
    return {
        "items": results.items,
        "papers": list(PAPERS.items()),
        "threats": [_threat(threat) for threat in results.threats],
        "kinds": [
            {"name": kind, "severities": [threat["severity"] for threat in threats]}
            for kind, threats in results.kinds.items()
        ],
        "roles": roles(results),
        "machines": {
            key: f"{where.get('processor') or 'unknown processor'} ({where.get('device', '?')})"
            for key, where in results.manifest["environments"].items()
        },
        "models": records,
    }


def with_pictures(
    records: list[dict[str, Any]], results: Results, table: pd.DataFrame, room: int
) -> list[dict[str, Any]]:
    """The records with example images, as many as `room` bytes take: fewer for each model where not
    all models have room for all, then none for the lowest ranked."""
    rows = [row for _, row in table.iterrows()]
    room -= len(records) * len('"pictures_left_out":true,')
    for tiles in TILES:
        strips = [[asdict(strip) for strip in _pictures(results, row, tiles)] for row in rows]
        sizes = [len(_json({"pictures": own})) for own in strips]
        if sum(sizes) <= min(room, MANY):
            break
    fits = np.cumsum(sizes) <= room
    return [
        record | ({"pictures": own} if enough else {"pictures_left_out": True})
        for record, own, enough in zip(records, strips, fits, strict=True)
    ]


def _of_items(verdict: Mapping[str, Any], items: str) -> dict[str, Any]:
    """A verdict whose sentences speak of what its rows are of."""

    def said(one: Mapping[str, Any]) -> dict[str, Any]:
        return {**one, **{key: of_items(one[key], items) for key in ("text", "next") if key in one}}

    lists = {"alarms", "findings"} & verdict.keys()
    return {**verdict, **{key: [said(one) for one in verdict[key]] for key in lists}}


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """JSON with all its texts and numbers changed, keys too."""
    if isinstance(value, Mapping):
        return {change(key): _changed(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_changed(item, change) for item in value]
    return change(value)


def _clipped(value: Any) -> Any:
    """A sentence holds names, and a name may be of any length."""
    return shorten(value, TEXT) if isinstance(value, str) else value


def _finite(value: Any) -> Any:
    """Infinities as text: JSON has no word for eps = inf."""
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def embedded(value: Any) -> str:
    """JSON, deflated and in base64: it may stand inside a <script> element, of which nothing in it
    is the end, and the script inflates it."""
    return base64.b64encode(zlib.compress(_json(value), 9)).decode()


def _json(value: Any) -> bytes:
    finite = _changed(value, _finite)
    text = json.dumps(finite, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode()


def _threat(threat: Threat) -> dict[str, Any]:
    kept = ("name", "kind", "access", "norm", "eps", "role", "surrogate", "description", "severity")
    every: Mapping[str, Any] = threat
    said = {key: every[key] for key in kept if every.get(key) not in (None, "")}
    if targeted(threat):
        said["towards"] = towards(threat)
    return said | ({"radius": radius(threat["eps"])} if "eps" in said else {})


def _record(results: Results, model: Model, row: pd.Series) -> dict[str, Any]:
    names = [threat["name"] for threat in results.threats]
    kinds = list(results.kinds)
    ends = [name for name in two_sided.columns(results) if f"{name}_low" in row]
    summary = [*SUMMARY, *(VOTES if results.noisy else ()), *ends]
    record: dict[str, Any] = {
        "name": model["name"],
        "trainer": row["trainer"],
        "network": row["network"],
        "dataset": row["dataset"],
        "images": int(row["images"]),
        "complete": bool(row["complete"]),
        "rank": [None if pd.isna(row[key]) else int(row[key]) for key in _RANKS],
        "summary": {key: _interval(row, key) for key in summary},
        "card": _in_order(model["card"], CARD_ORDER),
        "fields": model["fields"],
        "published": model["card"].get("published", {}),
        "seeds": [_seed(seed) for seed in model["seeds"]],
        "kinds": [_interval(row, column_name(kind)) for kind in kinds],
        "threats": [_interval(row, column_name(name)) for name in names],
    }
    classes = by_class(results, model, CLEAN)
    if 1 < len(classes) <= CLASSES:
        record["classes"] = {label: _short(value) for label, value in classes.items()}
    measured = [measurements(results, model, name) for name in names]
    for key in Measurements.__dataclass_fields__:
        column = [_short(getattr(one, key)) for one in measured]
        if any(value is not None for value in column) and (key != "tie" or any(column)):
            record[key] = column
    if len(results.manifest["cells"]) <= DIGEST_CELLS:
        seeds = [seed["seed"] for seed in model["seeds"]]
        cells = [[results.cell(model["name"], seed, name) for seed in seeds] for name in names]
        record["cells"] = [[cell["digest"][:12] if cell else None for cell in row] for row in cells]
    record |= ends_record(results, model, row)
    strongest = _strongest(results, row)
    cell = strongest and results.cell(model["name"], model["seeds"][0]["seed"], strongest)
    if cell and cell.get("loss_trace"):
        record["trace"] = {"threat": strongest, "runs": runs(cell)}
    return record


_RANKS = ("rank", "rank_best", "rank_worst")


def _seed(seed: Seed) -> dict[str, Any]:
    kept = ("seed", "status", "error", "weights", "parameters", "seconds", "environment")
    said: Mapping[str, Any] = seed
    short = {key: _short(said[key]) for key in kept if said.get(key) is not None}
    return {**short, "curves": curves(history_of(seed))}


def curves(history: Sequence[Mapping[str, float]]) -> dict[str, list[float | None]]:
    """Training curves by column, at most EPOCHS points each; time and memory are not curves, and
    what has plots of its own (`what/...`) is left to them."""
    step = max(1, math.ceil(len(history) / EPOCHS))
    chosen = [row for place, row in enumerate(history) if (len(history) - 1 - place) % step == 0]
    names = _in_order({key: None for row in chosen for key in row}, CURVE_ORDER)
    return {
        name: [_short(row.get(name)) for row in chosen]
        for name in names
        if name not in COSTS and "/" not in name
    }


def runs(cell: Mapping[str, Any]) -> list[list[float | None]]:
    """The loss by step of each run (restart, surrogate) of an attack; the first RUNS of them."""
    trace = cell["loss_trace"]
    starts = [start for start in cell.get("loss_runs") or [] if 0 < start < len(trace)]
    pieces = zip([0, *starts], [*starts, len(trace)], strict=True)
    return [_short(trace[start:end]) for start, end in list(pieces)[:RUNS]]


def _in_order(values: Mapping[str, Any], first: Sequence[str]) -> dict[str, Any]:
    """`values` with some keys first, at every depth."""
    keys = sorted(values, key=lambda key: first.index(key) if key in first else len(first))
    return {
        key: _in_order(item, first) if isinstance(item := values[key], Mapping) else item
        for key in keys
    }


def _pictures(results: Results, row: pd.Series, tiles: int) -> list[Strip]:
    model = results.by_name[row["model"]]
    return examples(results, model, _strongest(results, row), _hardest(results, row), tiles)


def pictured_cells(results: Results, table: pd.DataFrame) -> dict[str, int]:
    """Of how many images of a cell, by its digest, the page may show pictures: of each model's
    first seed those of `_pictures`, and of each data set's first model one of every corruption."""
    most: dict[str, int] = {}
    for _, rows in table.groupby("dataset", sort=False):
        for place, (_, row) in enumerate(rows.iterrows()):
            model = results.by_name[row["model"]]
            sheet = [one["name"] for kind in results.kinds.values() for one in kind]
            shown = dict.fromkeys(sheet if place == 0 else [], 1) | {CLEAN: TILES[0]}
            shown |= {results.kinds[kind][-1]["name"]: TILES[0] for kind in _hardest(results, row)}
            if strongest := _strongest(results, row):
                shown[strongest] = TILES[0]
            for name, images in shown.items():
                cell = results.cell(model["name"], model["seeds"][0]["seed"], name)
                if cell:
                    most[cell["digest"]] = max(images, most.get(cell["digest"], 0))
    return most


def _hardest(results: Results, row: pd.Series) -> list[str]:
    """The kinds of corruption that leave least."""
    kinds = [kind for kind in results.kinds if not pd.isna(row[column_name(kind)])]
    return sorted(kinds, key=lambda kind: (row[column_name(kind)], kind))[:WORST_KINDS]


def _strongest(results: Results, row: pd.Series) -> str | None:
    """The attack that leaves the lowest accuracy; the first of equals."""
    left = {t["name"]: float(row[column_name(t["name"])]) for t in results.attacks}
    known = [name for name in left if not math.isnan(left[name])]
    return min(known, key=lambda name: left[name], default=None)


def _interval(row: pd.Series, column: str) -> list[float | None]:
    """[accuracy, low, high] in per cent, with the sd between seeds where there are several; rounded
    here, so that the script shows what the table says."""
    numbers = [_tenths(row[column + suffix]) for suffix in ("", "_low", "_high", "_sd")]
    return numbers[:3] if numbers[3] is None else numbers


def _tenths(value: float) -> float | None:
    return None if pd.isna(value) else float(f"{100 * value:.1f}")


def _short(value: Any) -> Any:
    """Numbers to four significant digits; what is not finite becomes null."""
    if isinstance(value, (list, tuple)):
        return [_short(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value
