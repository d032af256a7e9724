"""What a cell cost and what its outcome is like beyond accuracy, averaged over a model's seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from robench.show.packed.pack import MEANS, cell_means
from robench.show.results import Model, Results


@dataclass(frozen=True)
class Measurements:
    """Means over images, then over seeds; None where a cell is missing or a thing was not measured.

    vote: accuracy of the majority of `Results.voters` draws, for noisy models.
    tie: share of images whose two largest logits are equal.
    zero_gradient: share of images whose gradient is exactly zero where the attack starts.
    success: of a targeted attack, share of draws that answered the class aimed at.
    queries, gradients: per image. seconds: per cell. distance: mean norm of the perturbation.
    """

    vote: float | None = None
    tie: float | None = None
    zero_gradient: float | None = None
    queries: float | None = None
    gradients: float | None = None
    seconds: float | None = None
    distance: float | None = None
    success: float | None = None

    @property
    def passes(self) -> float:
        """Forward and backward, per image."""
        return (self.queries or 0.0) + (self.gradients or 0.0)


def measurements(results: Results, model: Model, threat: str) -> Measurements:
    """For one model under one threat; empty unless every seed has the cell."""
    tables, cells = results.tables(model, threat), results.cells(model, threat)
    if not tables:
        return Measurements()
    costs = [cell_means(rows, cell) for rows, cell in zip(tables, cells, strict=True)]
    return Measurements(
        vote=_vote(results, model, threat),
        success=None if (found := results.success(model, threat)) is None else float(found.mean()),
        seconds=_mean([cell["seconds"] for cell in cells]),
        zero_gradient=_mean([_column_mean(table, "zero_gradient") for table in tables]),
        **{name: _mean([means.get(name) for means in costs]) for name in MEANS},
    )


def by_class(results: Results, model: Model, threat: str) -> dict[str, float]:
    """Accuracy of the images of each class under a threat, by label, mean over seeds: what shows
    that a model never says some of its classes. Empty unless every seed has the cell."""
    tables = results.tables(model, threat)
    if not tables:
        return {}
    means = [
        rows.group_by("label").aggregate([("correct", "mean")]).sort_by("label") for rows in tables
    ]
    labels = means[0].column("label").to_pylist()
    values = np.mean([one.column("correct_mean").to_numpy() for one in means], axis=0)
    return {str(label): float(value) for label, value in zip(labels, values, strict=True)}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _column_mean(table: pa.Table, name: str) -> float | None:
    mean = pc.mean(table.column(name)).as_py()
    return None if mean is None else float(mean)


def _vote(results: Results, model: Model, threat: str) -> float | None:
    """None for a deterministic model: there is one draw, and accuracy says it all."""
    voted = results.vote(model, threat) if model.get("stochastic") else None
    return None if voted is None else float(voted.mean())
