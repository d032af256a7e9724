"""What every plot is made of: one data set's rows in, an SVG and its numbers out."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from robench.show.report.plots.figure import labels
from robench.show.report.text import entry, radius
from robench.show.results import Results

LINES = 8  # models a line plot can hold apart by colour, dash and marker
COLOURS = [sns.color_palette("colorblind")[i] for i in (0, 1, 2, 3, 4, 9, 5, 7)]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]


@dataclass(frozen=True)
class Sketch:
    """A plot as it was drawn for one data set, what it shows, and the numbers behind it as text."""

    figure: Figure
    title: str
    caption: str
    head: list[str]
    body: list[list[str]]
    broad: bool = False
    """Whether it wants the width of the page."""


@dataclass(frozen=True)
class Plot:
    """A sketch as it stands on the page, as an inline SVG."""

    title: str
    caption: str
    svg: str
    head: list[str]
    body: list[list[str]]
    broad: bool
    dataset: str
    """Whose plots it stands among; empty: the page has one data set."""


@dataclass(frozen=True)
class Drawing:
    """One data set's rows, and the few of them that line plots show."""

    results: Results
    table: pd.DataFrame
    """All its rows, complete or not."""
    few: pd.DataFrame
    """The best LINES of the ranked rows, with what they are compared with."""
    labels: dict[str, str]
    folder: str
    """What the names of all its models begin with; labels leave it out."""
    places: Mapping[str, int]
    """Number of each label on the page, by which it has one colour and one mark in all plots."""
    doubtful: frozenset[str] = frozenset()
    chance: float | None = None

    def line(self, model: str) -> dict[str, Any]:
        """How the line of a model looks: dashed where it is doubtful, which its label says."""
        place, turn = self.places[self.labels[model]], len(COLOURS)
        return {
            "label": self.labels[model] + (" (doubtful)" if model in self.doubtful else ""),
            "color": COLOURS[place % turn],
            "marker": MARKERS[(place + place // turn) % turn],
            "linestyle": "--" if model in self.doubtful else "-",
        }

    def mark(self, model: str) -> dict[str, Any]:
        """How a point of a model looks: hollow where it is doubtful, which its label says."""
        hollow = {"markerfacecolor": "none"} if model in self.doubtful else {}
        return self.line(model) | {"linestyle": "none", "markersize": 5.5} | hollow

    def mark_chance(self, axes: Any) -> None:
        """A dotted line where always answering the most frequent class would be."""
        if self.chance is not None:
            axes.axhline(self.chance, color="0.5", ls=":", lw=1, zorder=1)

    def threat_labels(self, names: Collection[str]) -> list[str]:
        """Short names: a kind of corruption without its card, unless two cards have it; a surrogate
        as its model is labelled."""
        kinds = {kind: kind.split("/")[-1] for kind in self.results.kinds}
        named = Counter(kinds.values())
        short = {kind: own for kind, own in kinds.items() if named[own] == 1}
        short |= {name: at_radius(name) for name in names if at_radius(name) != name}
        surrogates = sorted({t.get("surrogate") or "" for t in self.results.attacks})
        for model in surrogates:
            if self.folder and model.startswith(self.folder):
                own = model.removeprefix(self.folder)
                short |= {name: name.replace(model, own) for name in names if model in name}
        shown = labels((short.get(name, name) for name in dict.fromkeys(names)), 60)
        return list(shown.values())

    @property
    def hollow(self) -> str:
        """What hollow marks mean, where there are any."""
        some = self.doubtful.intersection(self.table["model"])
        return " Hollow marks are of doubtful models." if some else ""

    @property
    def left_out(self) -> str:
        few, all_ = len(self.few), len(self.table)
        said = f" {few} of {all_} models are drawn: the highest ranked, baselines and controls."
        return "" if few == all_ else said


def tones(count: int) -> list[Any]:
    """Colours of what is no model, from light to dark; each has a contrast of 3 with light and with
    dark pages."""
    flare = sns.color_palette("flare", as_cmap=True)
    return [flare(0.28 + 0.31 * place / max(count - 1, 1))[:3] for place in range(count)]


def at_radius(name: str) -> str:
    """The name of a threat with its radius as the field writes it: `pgd@8/255`."""
    written = re.search(r"@(\d[\d.e-]*)$", name)
    try:
        return name[: written.start(1)] + radius(written[1]) if written else name
    except ValueError:  # no number after all
        return name


def percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def with_interval(row: Any, column: str) -> list[str]:
    shown = entry(row, column)
    return [shown.value, f"{shown.low}–{shown.high}"] if shown else ["–", ""]


def number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"
