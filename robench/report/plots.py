"""The plots of the page: which there are, and for which rows."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from robench.report.comparisons import (
    clean_against_worst,
    cost_against_accuracy,
    heat_map,
    transfer_matrix,
)
from robench.report.curves import accuracy_by_eps, accuracy_by_severity, training_curves
from robench.report.drawing import LINES, Drawing, Plot
from robench.report.figure import labels, style
from robench.report.learning import gradient_cosines, implied_rates, trajectories
from robench.results import Results

GROUPS = 4  # data sets that get plots of their own


def plots(results: Results, table: pd.DataFrame) -> list[Plot]:
    """All plots for which the report has data, data set by data set."""
    makers: list[Callable[[Drawing, str], Plot | None]] = [
        heat_map, clean_against_worst, cost_against_accuracy, accuracy_by_eps, transfer_matrix,
        accuracy_by_severity, training_curves, gradient_cosines, implied_rates, trajectories,
    ]  # fmt: skip
    made: list[Plot] = []
    groups = list(table.groupby("dataset", sort=False))
    with style():
        for place, (dataset, rows) in enumerate(groups[:GROUPS]):
            few = rows[rows["complete"]].head(LINES)
            suffix = f": {labels([str(dataset)])[str(dataset)]}" if len(groups) > 1 else ""
            drawing = Drawing(results, rows, few, labels(rows["model"]), suffix)
            made += [
                plot for maker in makers if (plot := maker(drawing, f"d{place}-{maker.__name__}"))
            ]
    return made
