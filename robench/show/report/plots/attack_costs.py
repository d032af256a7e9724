"""What each attack leaves of each model, beside what it asked of it: a row for each attack."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import pandas as pd

from robench.show.leaderboard import column_name
from robench.show.report.measurements import Measurements, measurements
from robench.show.report.plots.comparisons import surrogates
from robench.show.report.plots.drawing import Drawing, Sketch, number, with_interval
from robench.show.report.plots.figure import figure, legend, logarithmic

ROWS = 40  # attacks that fit a screen; of more those that leave least


@dataclass(frozen=True)
class Point:
    """One attack on one model. asked: forward and backward passes per image; ms: per image."""

    row: pd.Series
    attack: str
    asked: float
    ms: float
    cost: Measurements

    @property
    def left(self) -> float:
        return float(self.row[column_name(self.attack)])


def cost_against_accuracy(drawing: Drawing) -> Sketch | None:
    """Every attack by its name, cheapest first: the accuracy that it left, what it asked, and the
    time that it took."""
    points = _points(drawing)
    attacks = _cheapest_first(points)
    if len(attacks) < 2:
        return None
    points = [point for point in points if point.attack in attacks]
    drawn = figure(10.4, 1.5 + 0.21 * len(attacks))
    panes = drawn.subplots(1, 3, sharey=True)
    one = drawing.results.items.removesuffix("s")
    places = {attack: place for place, attack in enumerate(attacks)}
    measured: dict[str, Callable[[Point], float]] = {
        "accuracy left, %": lambda point: 100 * point.left,
        f"forward and backward passes per {one}": lambda point: point.asked,
        f"milliseconds per {one}": lambda point: point.ms,
    }
    for axes, (label, x) in zip(panes, measured.items(), strict=True):
        for model in drawing.few["model"]:
            own = [point for point in points if point.row["model"] == model]
            y = [places[point.attack] for point in own]
            axes.plot([x(point) for point in own], y, **drawing.mark(model), clip_on=False)
        axes.set_xlabel(label)
        axes.tick_params(length=0)
    for axes in panes[1:]:
        logarithmic(axes)
    panes[0].set_xlim(-2, 102)
    if drawing.chance is not None:
        panes[0].axvline(100 * drawing.chance, color="0.5", ls=":", lw=1, zorder=1)
    panes[0].set_ylim(len(attacks) - 0.5, -0.5)
    panes[0].set_yticks(range(len(attacks)), drawing.threat_labels(attacks))
    legend(drawn, panes)
    return Sketch(
        drawn,
        "What an attack costs against what it leaves",
        "Attacks that ask a network anything, those that ask least first; further left in the "
        "first panel is a stronger attack, the dotted line is chance. Time is that of the whole "
        "cell, as measured where it ran, without what it took to make examples that models share."
        f"{drawing.hollow}{drawing.left_out}",
        ["model", "attack", "accuracy", "95% interval", "queries", "gradients", f"ms per {one}"],
        [
            [
                point.row["model"],
                point.attack,
                *with_interval(point.row, column_name(point.attack)),
                f"{point.cost.queries or 0:g}",
                f"{point.cost.gradients or 0:g}",
                number(point.ms),
            ]
            for point in points
        ],
        broad=True,
    )


def _points(drawing: Drawing) -> list[Point]:
    points, results = [], drawing.results
    attacks = results.attacks
    if surrogates(results) > 1:  # what was made on other models has a plot of its own
        attacks = [threat for threat in attacks if not threat.get("surrogate")]
    for _, row in drawing.few.iterrows():
        for threat in attacks:
            cost = measurements(results, results.by_name[row["model"]], threat["name"])
            if cost.passes:
                ms = 1000 * (cost.seconds or math.nan) / max(int(row["images"]), 1)
                points.append(Point(row, threat["name"], cost.passes, ms, cost))
    return points


def _cheapest_first(points: list[Point]) -> list[str]:
    """Names of attacks, by what they ask of a model in the mean."""
    by_attack: dict[str, list[Point]] = {}
    for point in points:
        by_attack.setdefault(point.attack, []).append(point)
    kept = sorted(by_attack, key=lambda attack: fmean(p.left for p in by_attack[attack]))[:ROWS]
    return sorted(kept, key=lambda attack: fmean(p.asked for p in by_attack[attack]))
