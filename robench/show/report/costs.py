"""What each model costs: time and memory of its training, time of an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from robench.show.leaderboard import CLEAN
from robench.show.results import Model, Results
from robench.store.manifest import history_of

ADDED, WHOLE = "added_memory_mb", "peak_memory_mb"
COSTS = ("seconds", ADDED, WHOLE)
"""Columns of training curves that are no curves. WHOLE is of runs of before."""


@dataclass(frozen=True)
class Cost:
    """One model, means over its seeds; None where nothing was measured.

    epochs: that were run. epoch_seconds: wall time of one, validation included. memory_mb: what
    training added at its peak to what was in use; whole: that it is the peak itself, of the whole
    process on a CPU, which is all that runs of before measured. inference_ms: per
    image and draw, in the fastest batch of the clean cell; where: key of the machine.
    """

    model: str
    trainer: str
    epochs: float | None
    epoch_seconds: float | None
    memory_mb: float | None
    whole: bool
    inference_ms: float | None
    where: str


def costs(results: Results) -> list[Cost]:
    """One entry for each model of which anything was measured, in the order of the manifest."""
    every = [_cost(results, model) for model in results.models]
    return [one for one in every if one.epoch_seconds is not None or one.inference_ms is not None]


def _cost(results: Results, model: Model) -> Cost:
    histories = [rows for seed in model["seeds"] if (rows := history_of(seed))]
    cells = results.cells(model, CLEAN)
    machines = {str(seed["environment"]) for seed in model["seeds"] if seed.get("environment")}

    def each(column: str, of: Callable[[list[float]], float]) -> list[float]:
        """A number of every training curve that has the column."""
        curves = [[row[column] for row in rows if column in row] for rows in histories]
        return [of(curve) for curve in curves if curve]

    added = each(ADDED, max)
    return Cost(
        model=model["name"],
        trainer=model["card"]["trainer"]["name"],
        epochs=_mean([float(len(rows)) for rows in histories]),
        epoch_seconds=_mean(each("seconds", fmean)),
        memory_mb=_mean(added or each(WHOLE, max)),
        whole=not added and bool(each(WHOLE, max)),
        inference_ms=_mean([c["inference_ms"] for c in cells if c.get("inference_ms")]),
        where=", ".join(sorted(machines)),
    )


def _mean(values: list[float]) -> float | None:
    return fmean(values) if values else None
