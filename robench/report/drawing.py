"""What every plot is made of: one data set's rows in, an SVG and its numbers out."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import seaborn as sns

from robench.report.figure import labels
from robench.results import Results

LINES = 8  # models a line plot can hold apart by colour, dash and marker
COLOURS = [sns.color_palette("colorblind")[i] for i in (0, 1, 2, 3, 4, 9, 5, 7)]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]


@dataclass(frozen=True)
class Plot:
    """An inline SVG, what it shows, and the numbers behind it as text."""

    title: str
    caption: str
    svg: str
    head: list[str]
    body: list[list[str]]
    broad: bool = False
    """Whether it wants the width of the page."""


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
    suffix: str
    places: Mapping[str, int]
    """Number of each model on the page, by which it has one colour and one mark in all plots."""
    doubtful: frozenset[str] = frozenset()
    chance: float | None = None

    @property
    def colours(self) -> dict[str, Any]:
        return {
            self.labels[name]: COLOURS[self.places[name] % len(COLOURS)]
            for name in self.table["model"]
        }

    @property
    def markers(self) -> dict[str, str]:
        turn = len(COLOURS)
        return {
            self.labels[name]: MARKERS[(self.places[name] + self.places[name] // turn) % turn]
            for name in self.table["model"]
        }

    def line(self, model: str) -> dict[str, Any]:
        """How the line of a model looks: dashed where it is doubtful, which its label says."""
        shown = self.labels[model]
        doubtful = model in self.doubtful
        return {
            "label": f"{shown} (doubtful)" if doubtful else shown,
            "color": self.colours[shown],
            "marker": self.markers[shown],
            "linestyle": "--" if doubtful else "-",
        }

    def mark_chance(self, axes: Any) -> None:
        """A dotted line where always answering the most frequent class would be."""
        if self.chance is not None:
            axes.axhline(self.chance, color="0.5", ls=":", lw=1, zorder=1)

    def threat_labels(self, names: Collection[str]) -> list[str]:
        """Short names: a kind of corruption without its card, unless two cards have it; a surrogate
        as its model is labelled."""
        kinds = [kind.split("/")[-1] for kind in self.results.kinds]
        short = {
            kind: kind.split("/")[-1]
            for kind in self.results.kinds
            if kinds.count(kind.split("/")[-1]) == 1
        }
        surrogates = sorted({t.get("surrogate") or "" for t in self.results.attacks})
        for model in surrogates:
            if self.folder and model.startswith(self.folder):
                own = model.removeprefix(self.folder)
                short |= {name: name.replace(model, own) for name in names if model in name}
        shown = labels((short.get(name, name) for name in dict.fromkeys(names)), 60)
        return list(shown.values())

    @property
    def left_out(self) -> str:
        few, all_ = len(self.few), len(self.table)
        said = f" {few} of {all_} models are drawn: the highest ranked, baselines and controls."
        return "" if few == all_ else said


def percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def with_interval(row: Any, column: str) -> list[str]:
    if math.isnan(row[column]):
        return ["–", ""]
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    return [f"{100 * row[column]:.1f}", f"{100 * low:.1f}–{100 * high:.1f}"]


def number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4g}"
