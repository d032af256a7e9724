"""Which images each model gets, packed for the page's script: two models are compared by them."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pandas as pd

from robench.show.leaderboard import CLEAN, mean_of
from robench.show.results import Model, Results
from robench.show.statistics import Floats

ROOM = 150_000
"""Bytes of a page; threats that would need more are left out, the last ones first."""
LEVELS = 255
"""Up to so many steps a share of right answers is kept as it is; finer ones are rounded."""
ROUNDED = 1023


def answers(results: Results, table: pd.DataFrame, room: int = ROOM) -> dict[str, Any]:
    """Models in the order of the table, each with its answers under every quantity of `of`.

    of: [where a model's record has the accuracy, at which place or key], and what it is called.
    images: of each data set the numbers of its test images. left_out: quantities without room.

    An entry is {"levels": n, "bits": base64} and of several seeds {"seeds": accuracy of each}: for
    each image, in as few bits as n needs, highest first, how many n-ths of its draws and seeds were
    right. None where a model lacks a cell, or met other images than the first of its data set.
    """
    models = [results.by_name[name] for name in table["model"]]
    images: dict[str, list[int]] = {}
    met = []
    for model, dataset in zip(models, table["dataset"], strict=True):
        own = _images(results, model)
        met.append(bool(own) and images.setdefault(str(dataset), own) == own)
    of: list[list[Any]] = []
    packed: list[list[Any]] = [[] for _ in models]
    quantities = _quantities(results)
    for where, at, label in quantities:
        column = [
            _entry(_correct(results, model, where, at)) if same else None
            for model, same in zip(models, met, strict=True)
        ]
        room -= sum(len(entry["bits"]) + 40 if entry else 5 for entry in column)
        if room < 0:
            break
        of.append([where, at, label])
        for entries, entry in zip(packed, column, strict=True):
            entries.append(entry)
    left_out = len(quantities) - len(of)
    return {"of": of, "images": images, "models": packed, "left_out": left_out}


def _quantities(results: Results) -> list[tuple[str, Any, str]]:
    """What counts most first: the worst case, clean, attacks, other threats, corruptions."""
    names = [threat["name"] for threat in results.threats]
    counted = [threat["name"] for threat in results.attacks]
    others = [t["name"] for t in results.threats if t["kind"] == "attack"]
    known = [name for name in dict.fromkeys([CLEAN, *counted, *others]) if name in names]
    headline = [("summary", "worst_case", "worst case")] if results.attacked else []
    kinds = [("kinds", place, kind) for place, kind in enumerate(results.kinds)]
    return [*headline, *(("threats", names.index(name), name) for name in known), *kinds]


def _correct(results: Results, model: Model, where: str, at: Any) -> Floats | None:
    if where == "summary":
        return results.worst_case(model)
    if where == "threats":
        return results.correct(model, results.threats[at]["name"])
    return mean_of([results.correct(model, t["name"]) for t in list(results.kinds.values())[at]])


def _images(results: Results, model: Model) -> list[int]:
    table = results.table(model["name"], model["seeds"][0]["seed"], CLEAN)
    return [] if table is None else [int(one) for one in table.column("image").to_pylist()]


def _entry(correct: Floats | None) -> dict[str, Any] | None:
    """correct: (seeds, images), in [0, 1]."""
    if correct is None:
        return None
    share = correct.mean(axis=0)
    exact = (
        n for n in range(1, LEVELS + 1) if np.abs(share * n - np.round(share * n)).max() < 1e-3
    )
    levels = next(exact, ROUNDED)
    counts = np.round(share * levels).astype(np.uint16)
    width = levels.bit_length()
    bits = (counts[:, None] >> np.arange(width - 1, -1, -1)) & 1
    text = base64.b64encode(np.packbits(bits.astype(np.uint8).ravel()).tobytes()).decode()
    seeds = [round(float(mean), 6) for mean in correct.mean(axis=1)]
    return {"levels": levels, "bits": text} | ({"seeds": seeds} if len(seeds) > 1 else {})
