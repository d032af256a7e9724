"""Plots that set models side by side: heat maps, clean against worst case, cost, transfer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.ticker import LogLocator, NullFormatter

from robench.leaderboard import CLEAN, column_name
from robench.report.drawing import COLOURS, LINES, MARKERS, Drawing, Plot, percent, with_interval
from robench.report.figure import figure, labels, percent_ticks, svg, tidy
from robench.report.measurements import measurements

ANNOTATED = 240  # cells up to which a heat map prints its numbers


def heat_map(drawing: Drawing, name: str) -> Plot | None:
    """Model x threat; corruptions by their mean over severities."""
    results = drawing.results
    names = [CLEAN, *(t["name"] for t in [*results.attacks, *results.floors]), *results.kinds]
    shown = [key for key in names if drawing.table[column_name(key)].notna().any()]
    values = drawing.table[[column_name(key) for key in shown]].to_numpy(dtype=float)
    if values.size == 0:
        return None
    rows, across = values.shape
    drawn = figure(min(12.6, 2.8 + 0.66 * across), 1.5 + 0.29 * rows)
    axes = drawn.subplots()
    sns.heatmap(
        values,
        ax=axes,
        vmin=0,
        vmax=1,
        cmap="cividis",
        annot=100 * values if values.size <= ANNOTATED else None,
        fmt=".0f",
        annot_kws={"fontsize": 8},
        mask=np.isnan(values),
        rasterized=values.size > ANNOTATED,
        cbar_kws={"label": "accuracy", "ticks": [0, 0.5, 1], "shrink": min(1.0, 5 / rows + 0.2)},
        linewidths=0,
    )
    axes.grid(visible=False)
    axes.set_xticks(np.arange(across) + 0.5, drawing.threat_labels(shown), rotation=45, ha="right")
    axes.set_yticks(np.arange(rows) + 0.5, list(drawing.labels.values()), rotation=0)
    axes.tick_params(length=0)
    title = f"Accuracy of every model under every threat{drawing.suffix}"
    return Plot(
        title,
        "Bright is right, in per cent. Corruptions are averaged over severities; an empty field "
        "is a cell without outcome.",
        svg(drawn, name, title),
        ["model", *shown],
        [
            [model, *(percent(value) for value in row)]
            for model, row in zip(drawing.table["model"], values, strict=True)
        ],
        broad=across > 8,
    )


def clean_against_worst(drawing: Drawing, name: str) -> Plot | None:
    """Clean accuracy against the worst case, with 95% intervals."""
    known = drawing.table[drawing.table["worst_case"].notna() & drawing.table[CLEAN].notna()]
    if not drawing.results.attacks or len(known) < 2:
        return None
    drawn = figure(6.4, 4.2)
    axes = drawn.subplots()
    whisker: dict[str, Any] = {"color": "0.55", "lw": 0.8, "zorder": 1}
    axes.hlines(known["worst_case"], known["clean_low"], known["clean_high"], **whisker)
    axes.vlines(known[CLEAN], known["worst_case_low"], known["worst_case_high"], **whisker)
    trainers = labels(sorted(set(known["trainer"])), 24)
    palette = {shown: COLOURS[i % LINES] for i, shown in enumerate(trainers.values())}
    marks = {shown: MARKERS[i % LINES] for i, shown in enumerate(trainers.values())}
    sns.scatterplot(
        x=known[CLEAN],
        y=known["worst_case"],
        hue=known["trainer"].map(trainers),
        style=known["trainer"].map(trainers),
        palette=palette,
        markers=marks,
        s=45,
        linewidth=0,
        ax=axes,
        zorder=2,
        legend=len(trainers) <= 2 * LINES,
    )
    if len(known) <= 12:
        for _, row in known.iterrows():
            axes.annotate(
                drawing.labels[row["model"]], (row[CLEAN], row["worst_case"]), fontsize=7.5,
                xytext=(5, 4), textcoords="offset points",
            )  # fmt: skip
    axes.set(xlabel="clean accuracy, %", ylabel="worst case, %")
    tidy(axes)
    axes.set_ylim(-0.01, min(1.02, math.ceil(10 * known["worst_case_high"].max()) / 10 + 0.01))
    axes.set_yticks(*percent_ticks(axes.get_ylim()))
    left = max(0.0, math.floor(10 * known["clean_low"].min()) / 10)
    axes.set_xlim(left - 0.01, 1.01)
    axes.set_xticks(*percent_ticks(axes.get_xlim()))
    if axes.get_legend():
        axes.legend(title="trainer", bbox_to_anchor=(1.01, 1), loc="upper left")
    title = f"Clean accuracy against worst case{drawing.suffix}"
    return Plot(
        title,
        "Per-image worst case over all attacks; the lines are 95% intervals.",
        svg(drawn, name, title),
        ["model", "trainer", "clean", "95% interval", "worst case", "95% interval"],
        [
            [
                row["model"],
                row["trainer"],
                *with_interval(row, CLEAN),
                *with_interval(row, "worst_case"),
            ]
            for _, row in known.iterrows()
        ],
    )


def cost_against_accuracy(drawing: Drawing, name: str) -> Plot | None:
    """What each attack asked of each model, against the accuracy it left."""
    results = drawing.results
    by_name = {model["name"]: model for model in results.models}
    points = []
    for _, row in drawing.few.iterrows():
        for threat in results.attacks:
            cost = measurements(results, by_name[row["model"]], threat["name"])
            asked = (cost.queries or 0) + (cost.gradients or 0)
            if asked:
                points.append((row, threat["name"], asked, cost))
    if len({name for _, name, _, _ in points}) < 2:
        return None
    drawn = figure(6.4, 3.8)
    axes = drawn.subplots()
    shown = [drawing.labels[row["model"]] for row, _, _, _ in points]
    sns.scatterplot(
        x=[asked for _, _, asked, _ in points],
        y=[row[column_name(threat)] for row, threat, _, _ in points],
        hue=shown,
        style=shown,
        palette=drawing.colours,
        markers=drawing.markers,
        s=40,
        linewidth=0,
        ax=axes,
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="forward and backward passes per image", ylabel="accuracy, %")
    tidy(axes)
    axes.legend(bbox_to_anchor=(1.01, 1), loc="upper left")
    title = f"What an attack costs against what it leaves{drawing.suffix}"
    return Plot(
        title,
        f"One mark for each model and attack; further down is a stronger attack.{drawing.left_out}",
        svg(drawn, name, title),
        ["model", "attack", "accuracy", "95% interval", "queries", "gradients", "seconds"],
        [
            [
                row["model"],
                threat,
                *with_interval(row, column_name(threat)),
                f"{cost.queries or 0:g}",
                f"{cost.gradients or 0:g}",
                f"{cost.seconds or 0:.1f}",
            ]
            for row, threat, _, cost in points
        ],
    )


def transfer_matrix(drawing: Drawing, name: str) -> Plot | None:
    """Accuracy of each model under examples made on each surrogate."""
    threats = [threat for threat in drawing.results.attacks if threat.get("surrogate")]
    made_on = [threat["surrogate"] for threat in threats]
    if len(set(made_on)) < 2:
        return None
    surrogates = {
        t["surrogate"] if made_on.count(t["surrogate"]) == 1 else t["name"]: column_name(t["name"])
        for t in threats
    }
    values = drawing.table[list(surrogates.values())].to_numpy(dtype=float)
    drawn = figure(2.8 + 0.9 * len(surrogates), 1.6 + 0.3 * len(values))
    axes = drawn.subplots()
    sns.heatmap(
        values, ax=axes, vmin=0, vmax=1, cmap="cividis", annot=100 * values, fmt=".0f",
        mask=np.isnan(values), cbar_kws={"label": "accuracy", "ticks": [0, 0.5, 1]},
    )  # fmt: skip
    axes.grid(visible=False)
    across = np.arange(len(surrogates)) + 0.5
    axes.set_xticks(across, labels(surrogates, 24).values(), rotation=30, ha="right")
    axes.set_yticks(np.arange(len(values)) + 0.5, list(drawing.labels.values()), rotation=0)
    axes.set(xlabel="examples made on", ylabel="scored on")
    title = f"Transfer from surrogate to victim{drawing.suffix}"
    return Plot(
        title,
        "Accuracy of each model on adversarial examples that were made on another.",
        svg(drawn, name, title),
        ["scored on", *surrogates],
        [
            [model, *(percent(value) for value in row)]
            for model, row in zip(drawing.table["model"], values, strict=True)
        ],
    )
