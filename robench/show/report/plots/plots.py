"""The plots of the page: which there are, and for which rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

import pandas as pd

from robench.show.diagnostics.finding import Verdict
from robench.show.leaderboard import chance_levels
from robench.show.report.plots.attack_costs import cost_against_accuracy
from robench.show.report.plots.by_eps import with_worst_by_eps
from robench.show.report.plots.comparisons import heat_map, transfer_matrix
from robench.show.report.plots.curves import (
    accuracy_by_draws,
    accuracy_by_eps,
    accuracy_by_severity,
    training_curves,
)
from robench.show.report.plots.drawing import LINES, Drawing, Plot
from robench.show.report.plots.figure import labels, style
from robench.show.report.plots.learning import gradient_cosines, implied_rates, trajectories
from robench.show.report.plots.recall import recall_against_cost
from robench.show.report.plots.scatter import clean_against_worst
from robench.show.report.plots.two_sided import both_ends_by_eps
from robench.show.results import Results

GROUPS = 4  # data sets that get plots of their own


def plots(
    results: Results, table: pd.DataFrame, verdicts: Mapping[str, Verdict] | None = None
) -> list[Plot]:
    """All plots for which the report has data, data set by data set."""
    makers: list[Callable[[Drawing, str], Plot | None]] = [
        heat_map, both_ends_by_eps, recall_against_cost, clean_against_worst,
        cost_against_accuracy, accuracy_by_eps, accuracy_by_draws,
        transfer_matrix, accuracy_by_severity, training_curves,
        gradient_cosines, implied_rates, trajectories,
    ]  # fmt: skip
    made: list[Plot] = []
    table = with_worst_by_eps(results, table)
    groups = list(table.groupby("dataset", sort=False))[:GROUPS]
    wanted = compared_with(results)
    few = [_few(rows[rows["complete"]], wanted) for _, rows in groups]
    named = [_named(list(rows["model"])) for _, rows in groups]
    shown = [
        names[model] for names, rows in zip(named, few, strict=True) for model in rows["model"]
    ]
    places = _places([*shown, *(label for names in named for label in names.values())])
    doubtful = frozenset(
        name for name, found in (verdicts or {}).items() if found["verdict"] == "doubtful"
    )
    chance = chance_levels(results)
    several = table["dataset"].nunique() > 1
    with style():
        for place, (dataset, rows) in enumerate(groups):
            own = labels([str(dataset)], 60)[str(dataset)] if several else ""
            drawing = Drawing(
                results, rows, few[place], named[place], common_folder(list(rows["model"])),
                f": {own}" if own else "", places, doubtful, chance.get(str(dataset)),
            )  # fmt: skip
            made += [
                replace(plot, dataset=own)
                for maker in makers
                if (plot := maker(drawing, f"d{place}-{maker.__name__}"))
            ]
    return made


def _named(names: Sequence[str]) -> dict[str, str]:
    """What plots call models: without the folder that all of them begin with."""
    folder = common_folder(names)
    short = labels(name.removeprefix(folder) for name in names)
    return dict(zip(names, short.values(), strict=True))


def _places(shown: Sequence[str]) -> dict[str, int]:
    """A number for each label of the page, the same in each data set, in the order in which they
    come: those that are drawn before others, which share no colour while there are enough."""
    return {label: place for place, label in enumerate(dict.fromkeys(shown))}


def compared_with(results: Results) -> set[str]:
    """Baselines, and the models that claims compare with: without them no plot says anything."""
    card = results.manifest["report"]
    claims = card.get("claims", [])
    named = [claim.get(key) for claim in claims for key in ("than", "control")]
    plain = [m["name"] for m in results.models if m["card"]["trainer"]["name"] == "bp"]
    return {str(name) for name in [*card.get("baselines", []), *named, *plain[:2]] if name}


def _few(rows: pd.DataFrame, wanted: set[str]) -> pd.DataFrame:
    """The first rows, and in place of the last of them those that are wanted: all but the first
    row may be."""
    must = rows[rows["model"].isin(wanted)].head(LINES - 1)
    rest = rows[~rows["model"].isin(must["model"])].head(LINES - len(must))
    return rows[rows["model"].isin([*must["model"], *rest["model"]])]


def common_folder(names: Sequence[str]) -> str:
    """What all names begin with, up to a slash; of fewer than two names, nothing."""
    folders = zip(*(name.split("/")[:-1] for name in names), strict=False)
    shared = takewhile(lambda parts: len(set(parts)) == 1, folders)
    return "".join(f"{parts[0]}/" for parts in shared) if len(names) > 1 else ""
