"""The plots of the page: which there are, and for which rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from robench.show.report.plots.drawing import LINES, Drawing, Plot, Sketch
from robench.show.report.plots.figure import labels, style, svg
from robench.show.report.plots.learning import gradient_cosines, implied_rates, trajectories
from robench.show.report.plots.recall import recall_against_cost
from robench.show.report.plots.scatter import clean_against_worst
from robench.show.report.plots.two_sided import both_ends_by_eps
from robench.show.report.text import of_items
from robench.show.results import Results

GROUPS = 4  # data sets that get plots of their own


def plots(
    results: Results, table: pd.DataFrame, verdicts: Mapping[str, Verdict] | None = None
) -> list[Plot]:
    """All plots for which the report has data, data set by data set."""
    makers: list[Callable[[Drawing], Sketch | None]] = [
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
    named = [short_names(list(rows["model"])) for _, rows in groups]
    # What is drawn comes before what is not, and so shares no colour while there are enough.
    shown = [
        names[model] for names, rows in zip(named, few, strict=True) for model in rows["model"]
    ]
    known = dict.fromkeys([*shown, *(label for names in named for label in names.values())])
    places = {label: place for place, label in enumerate(known)}
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
                places, doubtful, chance.get(str(dataset)),
            )  # fmt: skip
            for maker in makers:
                if one := maker(drawing):
                    title = f"{one.title}: {own}" if own else one.title
                    text = svg(one.figure, f"d{place}-{maker.__name__}", title)
                    caption = of_items(one.caption, results.items)
                    made.append(Plot(title, caption, text, one.head, one.body, one.broad, own))
    return made


def short_names(names: Sequence[str], length: int = 36) -> dict[str, str]:
    """Names without the folder that all of them begin with, printable, distinct and of bounded
    length."""
    folder = common_folder(names)
    short = labels((name.removeprefix(folder) for name in names), length)
    return dict(zip(names, short.values(), strict=True))


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
