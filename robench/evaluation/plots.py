"""Plots of one evaluation on matplotlib axes, for notebooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from robench.errors import RobenchError
from robench.show.leaderboard import CLEAN, column_name
from robench.show.report.text import NORMS, budget
from robench.show.results import Results, Threat

SHOWN = 6
"""Images, and attacks, of the picture with examples."""


def threats(results: Results, name: str, row: pd.Series, ax: Axes | None) -> Axes:
    """Accuracy on clean images, under each attack and in the worst case, with 95% intervals."""
    bars = {"worst case": "worst_case", CLEAN: CLEAN}
    for threat in [*results.attacks, *results.floors]:
        bars[_with_ball(threat)] = column_name(threat["name"])
    bars |= {kind: column_name(kind) for kind in results.kinds}
    known = {label: key for label, key in bars.items() if not pd.isna(row[key])}
    ax = ax or plt.subplots(figsize=(6, 0.3 * len(known) + 1))[1]
    value, low, high = _percent(row, list(known.values()))
    ax.barh(list(known), value, xerr=[value - low, high - value], color="#0173b2", ecolor="#444")
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="accuracy, %", title=name)
    return ax


def eps(results: Results, name: str, row: pd.Series, ax: Axes | None) -> Axes:
    """Accuracy against the radius of each attack that has several; the clean accuracy at 0."""
    cards: dict[str, list[tuple[float, str]]] = {}
    for threat in [*results.attacks, *results.curves]:
        cards.setdefault(threat["card"], []).append(
            (float(threat["eps"]), column_name(threat["name"]))
        )
    lines = {card: points for card, points in cards.items() if len(dict(points)) > 1}
    if not lines:
        raise RobenchError("plot: no attack was run at several eps; evaluate with eps = [...]")
    norms = {str(NORMS.get(t["norm"], t["norm"])) for t in results.curves}
    drawn = {card: [(0.0, CLEAN), *points] for card, points in lines.items()}
    return _lines(drawn, name, row, ax, f"eps ({', '.join(sorted(norms))})")


def severity(results: Results, name: str, row: pd.Series, ax: Axes | None) -> Axes:
    """Accuracy against the severity of each kind of corruption; the clean accuracy at 0."""
    if not results.kinds:
        raise RobenchError("plot: no corruptions; evaluate with corruptions = ['imagenet-c']")
    lines = {
        kind: [(0.0, CLEAN), *((float(t["severity"]), column_name(t["name"])) for t in points)]
        for kind, points in results.kinds.items()
    }
    return _lines(lines, name, row, ax, "severity")


def examples(results: Results, name: str, row: pd.Series, ax: Axes | None) -> Axes:
    """The first images: clean in the first row, then as each attack left them, with what the module
    says of them."""
    rows: list[tuple[str, list[np.ndarray], list[str]]] = []
    labels = {CLEAN: CLEAN, **{t["name"]: _with_ball(t) for t in results.attacks}}
    for threat, label in list(labels.items())[: 1 + SHOWN]:
        table, cell = results.table(name, 0, threat), results.cell(name, 0, threat)
        if table is None or cell is None or "input" not in table.column_names:
            continue
        shape = tuple(cell["input_shape"])
        kept = [bytes_ for bytes_ in table.column("input").to_pylist()[:SHOWN] if bytes_]
        pictures = [np.frombuffer(b, np.uint8).reshape(shape).transpose(1, 2, 0) for b in kept]
        said = [str(drawn[0]) for drawn in table.column("predictions").to_pylist()[: len(kept)]]
        rows.append((label, pictures, said))
    if not rows or not rows[0][1]:
        raise RobenchError("plot: the results hold no images")
    height, width = rows[0][1][0].shape[:2]
    channels = rows[0][1][0].shape[2]
    sheet = np.full((len(rows) * (height + 2), SHOWN * (width + 2), channels), 255, np.uint8)
    ax = ax or plt.subplots(figsize=(SHOWN, len(rows)))[1]
    for down, (_, pictures, said) in enumerate(rows):
        for across, (picture, label) in enumerate(zip(pictures, said, strict=True)):
            top, left = down * (height + 2), across * (width + 2)
            sheet[top : top + height, left : left + width] = picture
            ax.text(left, top, label, color="#d55e00", va="top", fontsize=8)
    ax.imshow(sheet.squeeze(), cmap="gray", vmin=0, vmax=255)
    ax.set_yticks([down * (height + 2) + height / 2 for down in range(len(rows))])
    ax.set_yticklabels([threat for threat, _, _ in rows])
    ax.set_xticks([])
    ax.set_title(f"{name}: first images, and what it says of them")
    return ax


Draw = Callable[[Results, str, pd.Series, Axes | None], Axes]
PLOTS: dict[str, Draw] = {draw.__name__: draw for draw in (threats, eps, severity, examples)}


def _with_ball(threat: Threat) -> str:
    """An attack by its name and budget."""
    return f"{threat['name']} ({budget(threat)})"


def _lines(
    lines: dict[str, list[tuple[float, str]]], name: str, row: pd.Series, ax: Axes | None, x: str
) -> Axes:
    ax = ax or plt.subplots(figsize=(6, 4))[1]
    for label, points in lines.items():
        ordered = sorted({at: key for at, key in points if not pd.isna(row[key])}.items())
        value, low, high = _percent(row, [key for _, key in ordered])
        at = np.array([place for place, _ in ordered])
        (drawn,) = ax.plot(at, value, marker="o", label=label)
        ax.fill_between(at, low, high, color=drawn.get_color(), alpha=0.15)
    ax.set(ylim=(0, 100), ylabel="accuracy, %", xlabel=x, title=name)
    ax.legend(fontsize=8)
    return ax


def _percent(row: pd.Series, columns: list[str]) -> list[Any]:
    """Accuracies with both ends of their intervals, in per cent."""
    return [
        100 * np.array([float(row[column + suffix]) for column in columns])
        for suffix in ("", "_low", "_high")
    ]
