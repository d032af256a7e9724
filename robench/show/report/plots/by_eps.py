"""What is left at each radius when an attacker may choose, image by image, between all attacks that
look there or nearer: the curve by which models are compared."""

from __future__ import annotations

import numpy as np
import pandas as pd

from robench.show.leaderboard import summaries
from robench.show.results import Model, Results, Threat


def radii(results: Results) -> dict[str, list[float]]:
    """Of each norm the radii at which attacks look, where they are several."""
    by_norm: dict[str, set[float]] = {}
    for threat in _looking(results):
        by_norm.setdefault(threat["norm"], set()).add(float(threat["eps"]))
    return {
        norm: sorted(values)
        for norm, values in by_norm.items()
        if len(values) > 1 and all(np.isfinite(value) for value in values)
    }


def worst_column(norm: str, eps: float) -> str:
    return f"worst up to {norm} {eps:g}"


def with_worst_by_eps(results: Results, table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column, and its interval, for each norm and radius."""
    rows = [_worst(results, results.by_name[name]) for name in table["model"]]
    return pd.concat([table, pd.DataFrame(rows, index=table.index)], axis=1)


def _worst(results: Results, model: Model) -> dict[str, float]:
    columns: dict[str, float] = {}
    clean = [threat for threat in results.threats if threat["kind"] == "clean"]
    for norm, places in radii(results).items():
        for eps in places:
            near = [t for t in _looking(results) if t["norm"] == norm and float(t["eps"]) <= eps]
            left = results.worst_case(model, [*clean, *near])
            name = worst_column(norm, eps)
            ends = summaries({name: left}, {}) if left is not None else {}
            columns |= {name + end: ends.get(name + end, np.nan) for end in ("", "_low", "_high")}
    return columns


def _looking(results: Results) -> list[Threat]:
    """Everything that looks for what to break: attacks, curves and noise."""
    several = {t["card"] for t in results.curves}
    known = [*results.attacks, *results.floors, *results.curves]
    return known if several else [t for t in known if not t.get("surrogate")]
