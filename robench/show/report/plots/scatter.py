"""Plots of points with their names beside them: clean accuracy against the worst case."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from robench.show.leaderboard import CLEAN
from robench.show.report.plots.drawing import LINES, Drawing, Sketch, with_interval
from robench.show.report.plots.figure import figure, percent_ticks, tidy

NAMED = 12  # points up to which each bears its name


def clean_against_worst(drawing: Drawing) -> Sketch | None:
    """Clean accuracy against the worst case, with 95% intervals."""
    known = drawing.table[drawing.table["worst_case"].notna() & drawing.table[CLEAN].notna()]
    if not drawing.results.searched or len(known) < 2:
        return None
    drawn = figure(6.4, 4.2)
    axes = drawn.subplots()
    whisker: dict[str, Any] = {"color": "0.55", "lw": 0.8, "zorder": 1}
    axes.hlines(known["worst_case"], known["clean_low"], known["clean_high"], **whisker)
    axes.vlines(known[CLEAN], known["worst_case_low"], known["worst_case_high"], **whisker)
    for _, row in known.iterrows():
        axes.plot(row[CLEAN], row["worst_case"], **drawing.mark(row["model"]), zorder=2)
    axes.set(xlabel="clean accuracy, %", ylabel="worst case, %")
    tidy(axes)
    drawing.mark_chance(axes)
    axes.set_ylim(-0.01, min(1.02, math.ceil(10 * known["worst_case_high"].max()) / 10 + 0.01))
    axes.set_yticks(*percent_ticks(axes.get_ylim()))
    left = max(0.0, math.floor(10 * known["clean_low"].min()) / 10)
    right = min(1.0, math.ceil(10 * known["clean_high"].max()) / 10)
    axes.set_xlim(left - 0.01, right + 0.01)
    axes.set_xticks(*percent_ticks(axes.get_xlim()))
    if NAMED < len(known) <= 2 * LINES:
        axes.legend(bbox_to_anchor=(1.01, 1), loc="upper left")
    if len(known) <= NAMED:
        places = zip(known["model"], known[CLEAN], known["worst_case"], strict=True)
        write_names(drawn, axes, {drawing.labels[model]: (x, y) for model, x, y in places})
    return Sketch(
        drawn,
        "Clean accuracy against worst case",
        "Per-image worst case over all attacks; the lines are 95% intervals, the dotted one is "
        f"chance.{drawing.hollow}",
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


def write_names(drawn: Figure, axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Writes each point's name beside it, where it hides neither another name nor a point."""
    engine = drawn.get_layout_engine()
    if engine is not None:
        engine.execute(drawn)  # it decides where points lie
    inside = axes.get_window_extent()
    at = [axes.transData.transform(point) for point in points.values()]
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in at]
    for name in sorted(points, key=lambda name: -points[name][1]):
        tried: list[tuple[float, Annotation, Bbox]] = []
        for up, right in product((4, -10, 14, -20, 24, -30, 34, 44, 54, 64), (True, False)):
            away = 6 if abs(up) < 12 else 16
            text = axes.annotate(
                name, points[name], fontsize=7.5, textcoords="offset points",
                xytext=(away if right else -away, up), ha="left" if right else "right",
                arrowprops=None if away < 12 else {"arrowstyle": "-", "lw": 0.5, "color": "0.55"},
            )  # fmt: skip
            box = extent(text)
            hidden = sum(_shared(box, other) for other in taken)
            tried.append((hidden + box.width * box.height - _shared(box, inside), text, box))
            if tried[-1][0] == 0:
                break
        best = min(tried, key=lambda one: one[0])
        for one in tried:
            if one is not best:
                one[1].remove()
        taken.append(best[2])


def extent(text: Annotation) -> Bbox:
    """Of the name alone, without the line to its point."""
    text.get_window_extent()  # which puts it where it belongs
    return Text.get_window_extent(text)


def _shared(one: Bbox, other: Bbox) -> float:
    """Area that two boxes share."""
    both = Bbox.intersection(one, other)
    return 0.0 if both is None else float(both.width * both.height)
