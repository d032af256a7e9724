"""A plot of both ends over the radius: what lies between the proved share and the attacked one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd
from matplotlib.ticker import NullLocator

from robench.show.balls import Ball
from robench.show.leaderboard import CLEAN
from robench.show.report.plots.drawing import Drawing, Sketch, tones, with_interval
from robench.show.report.plots.figure import grid, legend, spaced, tidy
from robench.show.report.text import NORMS
from robench.show.two_sided import ATTACKED, PROVED, balls, column

TICK = 0.14
"""Share of an axis that a number under it takes."""


def both_ends_by_eps(drawing: Drawing) -> Sketch | None:
    """A panel for each model: the proved and the attacked share of its images, and the band between
    them, over the radii at which something is proved."""
    proofs = [ball for ball in balls(drawing.results) if ball.eps > 0]
    several = Counter((ball.norm, ball.part) for ball in proofs)
    if not several or max(several.values()) < 2:
        return None
    norm, part = max(several, key=lambda kind: several[kind])
    radii = [ball for ball in proofs if (ball.norm, ball.part) == (norm, part)]
    shown = [row for _, row in drawing.few.iterrows() if len(_known(row, radii)) > 1]
    if not shown:
        return None
    drawn, panes = grid(len(shown))
    for axes, row in zip(panes, shown, strict=False):
        _panel(axes, row, _known(row, radii))
        axes.set_title(drawing.labels[row["model"]])
        axes.set_xlabel(f"eps ({NORMS.get(norm, norm)})")
        tidy(axes)
    legend(drawn, panes)
    return Sketch(
        drawn,
        "Proved and attacked, by radius",
        "At each marked radius the robust accuracy on these images lies in the hatched band, and "
        "that on others between the dotted lines, at 95%. At eps = 0 both ends are the clean "
        f"accuracy.{drawing.left_out}",
        ["model", "eps", "proved", "95% interval", "attacked", "95% interval"],
        [
            [
                row["model"],
                f"{ball.eps:g}",
                *with_interval(row, column(PROVED, ball)),
                *with_interval(row, column(ATTACKED, ball)),
            ]
            for row in shown
            for ball in _known(row, radii)
        ],
        broad=len(shown) > 2,
    )


def _known(row: pd.Series, radii: list[Ball]) -> list[Ball]:
    return [ball for ball in radii if not pd.isna(row[column(PROVED, ball)])]


def _panel(axes: Any, row: pd.Series, known: list[Ball]) -> None:
    x = [0.0, *(ball.eps for ball in known)]

    def line(part: str, end: str = "") -> list[float]:
        return [row[CLEAN + end], *(row[column(part, ball) + end] for ball in known)]

    proved, attacked = line(PROVED), line(ATTACKED)
    light, dark = tones(2)
    axes.fill_between(
        x, proved, attacked, facecolor="none", edgecolor=light, hatch="////", lw=0,
    )  # fmt: skip
    for part, values, mark, far in (
        (ATTACKED, attacked, "v", line(ATTACKED, "_high")),
        (PROVED, proved, "^", line(PROVED, "_low")),
    ):
        colour = dark if part == PROVED else light
        axes.plot(x, values, color=colour, marker=mark, label=part, clip_on=False)
        axes.plot(x, far, color=colour, ls=":", lw=1)
    kept = spaced(x, TICK * (x[-1] - x[0]))
    axes.set_xticks(kept, [f"{place:.3g}" for place in kept])
    axes.xaxis.set_minor_locator(NullLocator())
