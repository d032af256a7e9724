"""Proofs for synthetic outcomes: invented as those are, but in agreement with all their attacks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from synthetic import attack_threat

from robench.digest import digest
from robench.show.results import Results
from robench.store.store import rows_digest


def proof_threat(name: str, eps: float, **more: Any) -> dict[str, Any]:
    threat = attack_threat(name, eps, 0.0, role="proof", **more)
    return {key: item for key, item in threat.items() if key != "hardness"}


def proven(
    results: Results,
    radii: Sequence[float] = (0.02, 0.05, 0.1),
    *,
    open_within: float = 0.08,
    card: str = "exact",
    norm: str = "linf",
) -> Results:
    """The same report with a proof at each of the radii.

    Every image has a radius of its own, up to which it is truly robust; a proof settles it unless
    that lies near the ball's. Models with several draws get a certificate that falls with the
    radius instead.

    Args:
        open_within: how near, as a share of the ball's radius; 0: all images are settled.
    """
    manifest, rows = copy.deepcopy(results.manifest), dict(results.rows)
    attacks = [t for t in manifest["threats"] if t["kind"] == "attack" and t["role"] != "floor"]
    for model in manifest["models"]:
        model["stochastic"] = _draws(results, model) > 1
    for eps in radii:
        name = f"{card}@{eps:g}" if len(radii) > 1 else card
        manifest["threats"].append(proof_threat(name, eps, card=card, norm=norm))
        inside = [t["name"] for t in attacks if t["norm"] == norm and t["eps"] <= eps]
        for model in manifest["models"]:
            for seed in model["seeds"]:
                tables = [
                    table
                    for threat in ["clean", *inside]
                    if (table := results.table(model["name"], seed["seed"], threat)) is not None
                ]
                left = np.min([table.column("correct").to_numpy() for table in tables], axis=0)
                made = digest({"proof": [model["name"], seed["seed"], name]})
                rows[made] = (
                    _certified(tables[0], left, eps)
                    if model["stochastic"]
                    else _settled(tables[0], left, eps, open_within)
                )
                manifest["cells"].append(
                    {
                        "model": model["name"], "seed": seed["seed"], "threat": name,
                        "digest": made, "status": "done", "error": None,
                        "outcome": rows_digest(rows[made]), "seconds": 20.0, "environment": "e0",
                    }
                )  # fmt: skip
    return Results(manifest, rows)


def changed(results: Results, cell: str, **columns: Any) -> Results:
    """With other columns in one cell's rows, by its digest."""
    table = results.rows[cell]
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))
    return Results(results.manifest, {**results.rows, cell: table})


def _settled(clean: pa.Table, left: np.ndarray, eps: float, open_within: float) -> pa.Table:
    own = 0.3 * np.random.default_rng(11).random(len(clean))
    undecided = np.abs(own - eps) < open_within * eps
    proved = (left == 1) & (own >= eps) & ~undecided
    found = (left == 1) & (own < eps) & ~undecided
    return _rows(clean, np.where(found, 0.0, clean.column("correct").to_numpy()), proved)


def _certified(clean: pa.Table, left: np.ndarray, eps: float) -> pa.Table:
    return _rows(clean, clean.column("correct").to_numpy(), np.clip(0.9 * left - 9 * eps, 0, 1))


def _rows(clean: pa.Table, correct: np.ndarray, proved: np.ndarray) -> pa.Table:
    place = clean.column_names.index("correct")
    rows = clean.set_column(place, "correct", pa.array(correct.astype(np.float32)))
    return rows.append_column("proved", pa.array(proved.astype(np.float32)))


def _draws(results: Results, model: dict[str, Any]) -> int:
    table = results.table(model["name"], model["seeds"][0]["seed"], "clean")
    return 1 if table is None else len(table.column("predictions")[0])
