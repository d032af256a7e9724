"""Plots of how models learn: the direction of LR's gradient, b-functions, ways of the weights.

They are drawn where training curves hold columns named `cosine/...`, `weight/...`, or a trainer
replaces derivatives.
"""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, NullLocator

from robench.networks.derivatives import OWN, BFunction, parse
from robench.show.report.plots.drawing import LINES, MARKERS, Drawing, Sketch, number, tones
from robench.show.report.plots.figure import figure, grid, legend
from robench.show.results import Model
from robench.store.manifest import history_of

DERIVATIVES = {"relu": "relu", "sigmoid": "sigmoid", "tanh": "tanh", "elu": "elu"}
"""Activations whose derivative is a b-function of this name."""
Z = np.linspace(-4, 4, 161)
DASHES = ("-", "--", ":", "-.")


def gradient_cosines(drawing: Drawing) -> Sketch | None:
    """Cosine of LR's gradient with BP's, layer by layer, against copies and against seconds."""
    measured = {model["name"]: _cosines(model) for model in _shown(drawing)}
    measured = {model: rows for model, rows in measured.items() if not rows.empty}
    if not measured:
        return None
    drawn, panes = grid(2 * len(measured))
    for place, (model, rows) in enumerate(measured.items()):
        for axes, against in zip(panes[2 * place :], ("copies", "seconds"), strict=False):
            layers = list(rows.groupby("layer"))
            looks = zip(tones(len(layers)), cycle(MARKERS), strict=False)
            for (layer, line), (colour, mark) in zip(layers, looks, strict=False):
                axes.plot(
                    line[against], line["cosine"], marker=mark, color=colour, label=f"layer {layer}"
                )
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(NullLocator())
            if against == "copies":
                axes.set_xticks(sorted(rows[against].unique()))
            axes.set_xlabel(against)
            axes.set_title(drawing.labels[model])
            axes.tick_params(length=2)
    legend(drawn, panes)
    body = [
        [model, *map(number, (row[key] for key in ("layer", "copies", "seconds", "cosine")))]
        for model, rows in measured.items()
        for row in rows.to_dict("records")
    ]
    return Sketch(
        drawn,
        "Cosine of the LR gradient with the BP gradient",
        "Of 100 training images; means over epochs and seeds. With noise in one layer at a time, "
        "copies are for each layer.",
        ["model", "layer", "copies", "seconds", "cosine"],
        body,
        broad=len(measured) > 1,
    )


def _cosines(model: Model) -> pd.DataFrame:
    """Columns layer, copies, seconds, cosine."""
    rows = []
    for seed in model["seeds"]:
        for epoch in history_of(seed):
            for column, value in epoch.items():
                if column.startswith("cosine/"):
                    layer, _, copies = column.removeprefix("cosine/").partition("@")
                    seconds = epoch.get(f"cosine seconds/{copies}", np.nan)
                    rows.append((int(layer), int(copies), seconds, value))
    table = pd.DataFrame(rows, columns=["layer", "copies", "seconds", "cosine"])
    return table.groupby(["layer", "copies"], as_index=False).mean()


def implied_rates(drawing: Drawing) -> Sketch | None:
    """g(z), and the learning rate that it implies, beta(z) = alpha g(z) / sigma'(z) (BF Eq. 4)."""
    rates: list[tuple[str, str, np.ndarray, np.ndarray]] = []
    for model in _shown(drawing):
        trainer, network = model["fields"]["trainer"], model["fields"]["network"]
        own = DERIVATIVES.get(str(network.get("activation", "")))
        if own is None:
            continue
        for text, g in _functions(model).items():
            slope = parse(own)(np, Z)
            values = np.broadcast_to((g or parse(own))(np, Z), Z.shape)
            with np.errstate(divide="ignore", invalid="ignore"):
                rate = np.where(slope > 1e-6, trainer["lr"] * values / slope, np.nan)
            rates.append((model["name"], text, values, rate))
    lines = rates[:LINES]
    if not lines:
        return None
    drawn, panes = grid(2, same_scale=False)
    drawn_of: dict[str, int] = {}
    for who, text, values, rate in lines:
        shown = drawing.labels[who]
        dashes = DASHES[drawn_of.setdefault(who, 0) % len(DASHES)]  # a model has one colour
        drawn_of[who] += 1
        colour = drawing.line(who)["color"]
        for axes, y in zip(panes, (values, rate), strict=True):
            axes.plot(Z, y, color=colour, ls=dashes, label=f"{shown}: {text}"[:40])
    for axes, what in zip(panes, ("g(z)", "implied learning rate"), strict=True):
        axes.set_title(what)
        axes.set_xlabel("z")
        axes.tick_params(length=2)
    legend(drawn, panes)
    return Sketch(
        drawn,
        "B-functions and the learning rates they imply",
        "beta(z) = alpha g(z) / sigma'(z), Eq. 4 of the BF paper; undefined where sigma' is 0."
        + "".join(_searched(model) for model in _shown(drawing)),
        ["model", "b-function", "z", "g(z)", "beta(z)"],
        [
            [who, text, f"{Z[i]:g}", number(values[i]), number(rate[i])]
            for who, text, values, rate in lines
            for i in range(0, len(Z), 20)
        ],
    )


def _functions(model: Model) -> dict[str, BFunction | None]:
    """The b-functions that a model was trained with, by their text; None is the own derivative."""
    trainer = model["fields"]["trainer"]
    for seed in model["seeds"]:
        first = (history_of(seed) or [{}])[0]
        if "b-function/w1" in first:
            point = tuple(first[f"b-function/{key}"] for key in ("w1", "b1", "w2", "b2"))
            searched = BFunction("network", point)
            return {str(searched): searched}
    if trainer.get("plugin") != "bfunction":
        return {}
    return {text: None if text == OWN else parse(text) for text in trainer["functions"]}


def _searched(model: Model) -> str:
    """What a search for a b-function came to, in a sentence; mean over seeds."""
    firsts = [(history_of(seed) or [{}])[0] for seed in model["seeds"]]
    areas = [(row["area/learned"], row["area/own"]) for row in firsts if "area/own" in row]
    if not areas:
        return ""
    learned, own = np.mean(areas, axis=0)
    lower = sum(ours < theirs for ours, theirs in areas)
    return (
        f" {model['name']}: area under the loss curve of a trial {learned:.4f}, with the "
        f"activation's own derivative {own:.4f}; lower in {lower} of {len(areas)} seeds."
    )


def trajectories(drawing: Drawing) -> Sketch | None:
    """The way of the weights that learn: of two, as they are; of more, projected on the two
    directions in which they differ most. First seed of each model."""
    ways = {model["name"]: _way(model) for model in _shown(drawing)}
    ways = {model: way for model, way in ways.items() if len(way) > 1}
    widths = {way.shape[1] for way in ways.values()}
    if len(widths) != 1:
        return None
    points = np.concatenate(list(ways.values()))
    two = widths == {2}
    middle, directions = np.zeros(2), np.eye(2)
    if not two:
        middle = points.mean(0)
        _, _, directions = np.linalg.svd(points - middle, full_matrices=False)
    drawn = figure(6.2, 4.2)
    axes: Any = drawn.subplots()
    body: list[list[str]] = []
    for model, way in ways.items():
        flat = (way - middle) @ directions[:2].T
        flat = np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
        looks = drawing.line(model) | {"marker": None}
        axes.plot(*flat.T, **looks)
        axes.plot(*flat[-1:].T, marker="o", color=looks["color"])
        body += [
            [model, str(epoch), number(x), number(y)] for epoch, (x, y) in enumerate(flat, start=1)
        ]
    what = "weight" if two else "direction"
    axes.set_xlabel(f"first {what}")
    axes.set_ylabel(f"second {what}")
    axes.tick_params(length=2)
    legend(drawn, [axes])
    caption = "By epoch, of the first seed; a dot marks the end."
    if not two:
        caption += " Principal directions of all points together."
    head = ["model", "epoch", f"first {what}", f"second {what}"]
    return Sketch(drawn, "Ways through weight space", caption, head, body)


def _way(model: Model) -> np.ndarray:
    """Weights by epoch, (epochs, weights)."""
    history = history_of(model["seeds"][0])
    names = [column for column in (history[0] if history else {}) if column.startswith("weight/")]
    return np.array([[row[name] for name in names] for row in history if names])


def _shown(drawing: Drawing) -> list[Model]:
    return [drawing.results.by_name[model] for model in drawing.few["model"]]
