"""Plots that set models side by side: heat maps of every threat, and of transfer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from robench.show.leaderboard import CLEAN, column_name
from robench.show.report.plots.drawing import Drawing, Sketch, percent
from robench.show.report.plots.figure import figure
from robench.show.results import Results

ANNOTATED = 240  # cells up to which a heat map prints its numbers
SCALE = {"label": "accuracy, %", "ticks": [0, 50, 100]}


def heat_map(drawing: Drawing) -> Sketch | None:
    """Model x threat; corruptions by their mean over severities."""
    results = drawing.results
    names = [CLEAN, *(t["name"] for t in [*results.attacks, *results.floors]), *results.kinds]
    if surrogates(results) > 1:  # they have a plot of their own
        twice = {t["name"] for t in results.attacks if t.get("surrogate")}
        names = [key for key in names if key not in twice]
    shown = [key for key in names if drawing.table[column_name(key)].notna().any()]
    values = 100 * drawing.table[[column_name(key) for key in shown]].to_numpy(dtype=float)
    if values.size == 0 or values.shape[1] < 2:
        return None
    rows, across = values.shape
    below = drawing.threat_labels(shown)
    drawn = figure(*_size(list(drawing.labels.values()), below, 0.66))
    _fields(
        drawn.subplots(),
        drawing,
        values,
        below,
        annot=values.size <= ANNOTATED,
        annot_kws={"fontsize": 8},
        rasterized=values.size > ANNOTATED,
        cbar=values.size > ANNOTATED,  # numbers say it better
        cbar_kws=SCALE | {"shrink": min(1.0, 5 / rows + 0.2)},
    ).tick_params(length=0)
    elsewhere = " Attacks at several eps are drawn by themselves." if results.curves else ""
    return Sketch(
        drawn,
        "Accuracy of every model under every threat",
        "Bright is right, in per cent. Corruptions are averaged over severities; an empty field "
        f"lacks an outcome.{elsewhere}",
        ["model", *shown],
        _numbers(drawing, values),
        broad=across > 8,
    )


def _fields(
    axes: Axes, drawing: Drawing, values: np.ndarray, below: Sequence[str], **looks: Any
) -> Axes:
    """A field for each accuracy in per cent, (models, columns), with the names of both beside."""
    sns.heatmap(
        values, ax=axes, vmin=0, vmax=100, cmap="cividis", fmt=".0f", mask=np.isnan(values),
        linewidths=0, **looks,
    )  # fmt: skip
    _readable(axes)
    axes.grid(visible=False)
    axes.set_xticks(np.arange(len(below)) + 0.5, below, rotation=45, ha="right")
    names = list(drawing.labels.values())
    axes.set_yticks(np.arange(len(values)) + 0.5, names, rotation=0)
    return axes


def _numbers(drawing: Drawing, values: np.ndarray) -> list[list[str]]:
    return [
        [model, *(percent(value / 100) for value in row)]
        for model, row in zip(drawing.table["model"], values, strict=True)
    ]


def _size(beside: Sequence[str], below: Sequence[str], field: float) -> tuple[float, float]:
    """Width and height in inches in which all labels are whole, those below turned by half a right
    angle. field: the width of one."""
    letter = 0.068  # the mean width of one in the labels' size
    turned = letter * max(map(len, below)) / math.sqrt(2)
    left = max(letter * max(map(len, beside)), turned - field / 2)
    return min(12.6, 0.5 + left + field * len(below)), 0.5 + turned + 0.29 * len(beside)


def surrogates(results: Results) -> int:
    """Models that examples were made on."""
    return len({threat["surrogate"] for threat in results.attacks if threat.get("surrogate")})


def _readable(axes: Axes) -> None:
    """Numbers in black or white, whichever stands out more: one of both always has a contrast of
    4.5 (WCAG) and more."""
    mesh: Any = axes.collections[0]
    values = np.ma.asarray(mesh.get_array()).ravel()
    known = mesh.cmap(mesh.norm(values.compressed()))
    for text, colour in zip(axes.texts, known, strict=False):
        text.set_color("white" if contrast(colour, 1.0) > contrast(colour, 0.0) else "black")


def contrast(colour: Sequence[float], other: float) -> float:
    """WCAG's contrast of a colour (red, green, blue in [0, 1]) with a luminance."""
    parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    low, high = sorted((luminance, other))
    return (high + 0.05) / (low + 0.05)


def transfer_matrix(drawing: Drawing) -> Sketch | None:
    """Accuracy of each model under examples made on each surrogate."""
    threats = [threat for threat in drawing.results.attacks if threat.get("surrogate")]
    made_on = [str(threat["surrogate"]) for threat in threats]
    if surrogates(drawing.results) < 2:
        return None
    made = {
        surrogate if made_on.count(surrogate) == 1 else t["name"]: column_name(t["name"])
        for surrogate, t in zip(made_on, threats, strict=True)
    }
    values = 100 * drawing.table[list(made.values())].to_numpy(dtype=float)
    below = drawing.threat_labels(made)
    drawn = figure(*_size(list(drawing.labels.values()), below, 0.9))
    axes = _fields(drawn.subplots(), drawing, values, below, annot=True, cbar=False)
    axes.set(xlabel="examples made on", ylabel="scored on")
    return Sketch(
        drawn,
        "Transfer from surrogate to victim",
        "Accuracy of each model on adversarial examples made on the first seed of another model, "
        "or on its own.",
        ["scored on", *made],
        _numbers(drawing, values),
        broad=len(made) > 4,
    )
