"""Plots of lines: accuracy against strength and against severity, and training curves."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator, NullLocator

from robench.show.diagnostics.averaging import DRAWS, by_draws, draws_of
from robench.show.leaderboard import CLEAN, column_name
from robench.show.report.costs import COSTS
from robench.show.report.plots.by_eps import radii, worst_column
from robench.show.report.plots.drawing import Drawing, Sketch, number, with_interval
from robench.show.report.plots.figure import grid, legend, spaced, tidy
from robench.show.report.text import NORMS, radius
from robench.store.manifest import history_of

ACCURACY = "validation_accuracy"
MARKS = 8  # on a line of a training curve, so that colour is not all that tells it apart
TICK = 0.1
"""Share of an axis that a number under it takes."""


def accuracy_by_eps(drawing: Drawing) -> Sketch | None:
    """Accuracy against the radius, for every attack that has several."""
    panels = {
        f"all attacks, {NORMS.get(norm, norm)}": _from_clean(
            [(eps, worst_column(norm, eps)) for eps in places]
        )
        for norm, places in radii(drawing.results).items()
    }
    caption = (
        "At each eps what is left where an attacker may choose, image by image, between all "
        "attacks of at most that radius; eps = 0 is the clean accuracy; bands are 95% intervals."
        f"{drawing.left_out}"
    )
    title = "Accuracy against the strength of the attack"
    return _panels(drawing, panels, "eps", title, caption, bands=True)


def accuracy_by_draws(drawing: Drawing) -> Sketch | None:
    """Accuracy of noisy models against the draws that each gradient is averaged over."""
    curves = by_draws(drawing.results.attacks) if drawing.results.noisy else []
    panels = {
        f"eps = {curve[0]['eps']:g}" if len(curves) > 1 else "draws of a noisy model": [
            (float(draws_of(threat)), column_name(threat["name"])) for threat in curve
        ]
        for curve in curves
    }
    title = "Accuracy against the draws per gradient"
    caption = "Of noisy models: it has to level out, else more draws would break more images."
    caption = f"{caption} Bands are 95% intervals.{drawing.left_out}"
    return _panels(drawing, panels, DRAWS, title, caption, bands=True, log=True)


def accuracy_by_severity(drawing: Drawing) -> Sketch | None:
    """Accuracy against severity, a panel for each kind of corruption."""
    panels = {
        kind: [(0.0, CLEAN), *((t["severity"], column_name(t["name"])) for t in threats)]
        for kind, threats in drawing.results.kinds.items()
    }
    title = "Accuracy against the severity of corruptions"
    caption = f"Severity 0 is the clean accuracy.{drawing.left_out}"
    return _panels(drawing, panels, "severity", title, caption)


def _panels(
    drawing: Drawing,
    panels: dict[str, list[tuple[float, str]]],
    x_label: str,
    title: str,
    caption: str,
    bands: bool = False,
    log: bool = False,
) -> Sketch | None:
    """Small multiples of accuracy; a panel is the (x, column) pairs of its curves."""
    used = [column for points in panels.values() for _, column in points]
    rows = drawing.few[drawing.few[used].notna().any(axis=1)] if used else drawing.few
    if not panels or rows.empty:
        return None
    drawn, panes = grid(len(panels))
    tick = TICK if len(panels) > 1 else 0.65 * TICK  # a single panel is wider
    rooted = not log and any(_crowded([place for place, _ in points]) for points in panels.values())
    for axes, (panel, points) in zip(panes, panels.items(), strict=False):
        x = [place for place, _ in points]
        columns = [column for _, column in points]
        for _, row in rows.iterrows():
            looks = drawing.line(row["model"])
            axes.plot(x, [row[column] for column in columns], **looks)
            if bands:
                low, high = ([row[column + end] for column in columns] for end in ("_low", "_high"))
                axes.fill_between(x, low, high, color=looks["color"], alpha=0.12, lw=0)
        axes.set_title(drawing.threat_labels([panel])[0])
        axes.set_xlabel(x_label)
        if rooted:
            axes.set_xscale("function", functions=(np.sqrt, np.square))
        elif log:
            axes.set_xscale("log", base=2)
        # Of strengths that lie close only some are named.
        seen = [math.sqrt(place) if rooted else math.log(place) if log else place for place in x]
        kept = set(spaced(seen, tick * (seen[-1] - seen[0])))
        ticks = [place for place, where in zip(x, seen, strict=True) if where in kept]
        shown_as = [radius(place) if x_label == "eps" else f"{place:.3g}" for place in ticks]
        axes.set_xticks(ticks, shown_as)
        axes.xaxis.set_minor_locator(NullLocator())
        drawing.mark_chance(axes)
        tidy(axes)
    legend(drawn, panes)
    body = [
        [panel, f"{place:g}", row["model"], *with_interval(row, column)]
        for panel, points in panels.items()
        for place, column in points
        for _, row in rows.iterrows()
    ]
    head = ["panel", x_label, "model", "accuracy", "95% interval"]
    if rooted:
        caption = f"{caption} The axis of {x_label} is a square root, which widens its low end."
    return Sketch(drawn, title, caption, head, body, broad=len(panels) > 2)


def _crowded(places: list[float]) -> bool:
    """Whether most places lie in the lowest third of what they span."""
    low = [place for place in places if place - places[0] < (places[-1] - places[0]) / 3]
    return len(places) > 4 and 2 * len(low) > len(places)


def _from_clean(points: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """With the clean accuracy at eps = 0, unless the attack was run there too."""
    return points if points[0][0] == 0 else [(0.0, CLEAN), *points]


def training_curves(drawing: Drawing) -> Sketch | None:
    """Loss, validation accuracy and sigmas by epoch: a line for each model, mean over seeds."""
    rows = [
        {"model": model, **epoch}
        for model in drawing.few["model"]
        for seed in drawing.results.by_name[model]["seeds"]
        for epoch in history_of(seed)
    ]
    if not rows:
        return None
    data = pd.DataFrame(rows).drop(columns=[*COSTS], errors="ignore")
    data = data[[column for column in data.columns if "/" not in column]]  # learning.py has those
    first = {"loss": 0, ACCURACY: 1}
    measured = sorted(
        (column for column in data.columns if column not in ("model", "epoch")),
        key=lambda column: (first.get(column, 2), column),
    )
    means = data.groupby(["model", "epoch"], sort=False)[measured].mean().reset_index()
    per_model = means.groupby("model")[measured].nunique()
    measured = [name for name in measured if per_model[name].max() > 1]  # no flat lines
    if means["epoch"].nunique() < 2 or not measured:
        return None
    if ACCURACY in measured:
        means[ACCURACY] *= 100
    drawn, panes = grid(len(measured), same_scale=False)
    for axes, column in zip(panes, measured, strict=False):
        for model in drawing.few["model"]:
            line = means[means["model"] == model]
            axes.plot(
                line["epoch"], line[column], **drawing.line(model),
                markevery=math.ceil(len(line) / MARKS),
            )  # fmt: skip
        axes.set_title(column.replace("_", " ") + (", %" if column == ACCURACY else ""))
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(length=2)
    legend(drawn, panes)
    return Sketch(
        drawn,
        "Training curves",
        f"Means over seeds.{drawing.left_out}",
        ["model", "epoch", *measured],
        [
            [row["model"], f"{row['epoch']:g}", *(number(row[column]) for column in measured)]
            for row in means.to_dict("records")
        ],
        broad=len(measured) > 2,
    )
