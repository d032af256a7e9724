"""A seaborn figure as inline SVG: the same bytes every time, coloured by the page's own ink."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from typing import Any
from xml.sax.saxutils import escape

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

# Matplotlib draws with these; the page, light or dark, says what they look like.
INK, RULE = "#010203", "#040506"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the page's font
    "svg.hashsalt": "robench",
    "text.parse_math": False,  # a name may hold a dollar sign
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titley": 1.0,  # where titles are put anyway, once all ticks are measured
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
}


def style() -> AbstractContextManager[None]:
    """Within it, figures are drawn in the page's style; nothing outside changes."""
    return matplotlib.rc_context(STYLE)


WRITTEN_STYLE = re.compile(r' style="([^"]*)"')


def figure(width: float, height: float) -> Figure:
    """A figure of its own, in inches, without pyplot's global list of figures."""
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def svg(drawn: Figure, name: str, title: str) -> str:
    """The figure as an <svg> element. `name` makes its ids unlike those of other figures."""
    for axis in (axis for axes in drawn.axes for axis in (axes.xaxis, axes.yaxis)):
        if not axis.get_label_text():  # and so no ticks need to be measured to find its place
            axis.set_label_coords(0, 0)
    sink = io.StringIO()
    drawn.set_dpi(150)  # of what is rasterized
    # Not savefig, which draws a figure twice for the sake of its layout; this lays it out too.
    canvas: Any = FigureCanvasSVG(drawn)  # matplotlib has no types for what it does
    canvas.print_svg(sink, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = sink.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    own = f"p{sha256(name.encode()).hexdigest()[:6]}"
    text = _short_ids(text, own)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    text = re.sub(r"\s*font-family: [^;\"]*;?", "", text)  # the page's own
    text = text.replace(INK, "var(--ink)").replace(RULE, "var(--rule)")
    text = re.sub(r"<[^>]+>", _rounded, text)
    text = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", text)
    text = _said_once(re.sub(r">\s+<", "><", re.sub(r"\s*\n\s*", " ", text)), own)
    label = escape(title, {'"': "&quot;"})
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def _short_ids(text: str, own: str) -> str:
    """Ids numbered behind what no other figure of a page begins its own with: they are said again
    for every marker."""
    known = {name: f"{own}-{n}" for n, name in enumerate(re.findall(r'\bid="([^"]+)"', text))}

    def called(found: re.Match[str]) -> str:
        return found[1] + known.get(found[2], found[2])

    text = text.replace("xlink:href=", "href=")
    return re.sub(r'(\bid="|href="#|url\(#)([^")]+)', called, text)


def _said_once(text: str, name: str) -> str:
    """Styles that several elements share become classes, of which the figure begins by telling."""
    shared = [style for style, times in Counter(WRITTEN_STYLE.findall(text)).items() if times > 1]
    classes = {style: f"{name}-s{number}" for number, style in enumerate(shared)}

    def called(found: re.Match[str]) -> str:
        known = classes.get(found[1])
        return f' class="{known}"' if known else found[0]

    rules = "".join(f".{known}{{{style}}}" for style, known in classes.items())
    text = WRITTEN_STYLE.sub(called, text)
    return text.replace("<defs>", f"<defs><style>{rules}</style>", 1) if classes else text


def _rounded(tag: re.Match[str]) -> str:
    """Coordinates to tenths of a point; the text between tags is left as it is."""
    return re.sub(r"(\d\.\d)\d+", r"\1", tag[0])


def labels(names: Iterable[str], length: int = 36) -> dict[str, str]:
    """Names that fit a legend, one for each: shortened, printable, and still distinct."""
    shortened: dict[str, str] = {}
    for name in names:
        text = "".join(char if char.isprintable() else " " for char in name).strip() or "?"
        if len(text) > length:  # in the middle: what tells names apart is mostly at their ends
            head = length // 3
            text = f"{text[:head]}…{text[head + 1 - length :]}"
        if text.startswith("_"):  # matplotlib leaves such entries out of legends
            text = "\u200a" + text
        taken, number = set(shortened.values()), 2
        shown = text
        while shown in taken:
            shown, number = f"{text} ({number})", number + 1
        shortened[name] = shown
    return shortened


def percent_ticks(limits: tuple[float, float]) -> tuple[list[float], list[str]]:
    """Round accuracies within the limits, and how they read in per cent."""
    ticks = [
        t
        for t in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(*limits)
        if max(0, limits[0]) <= t <= limits[1]
    ]
    return ticks, [f"{100 * tick:g}" for tick in ticks]


def spaced(places: Sequence[float], least: float) -> list[float]:
    """Of increasing places those that lie at least so far apart; the first and the last stay."""
    kept: list[float] = []
    for place in places:
        if not kept or place - kept[-1] > least - 1e-9:
            kept.append(place)
    while len(kept) > 1 and 0 < places[-1] - kept[-1] < least - 1e-9:
        kept.pop()
    return kept if not kept or kept[-1] == places[-1] else [*kept, places[-1]]


def tidy(axes: Axes) -> None:
    """Accuracy from 0 to 100% up the side."""
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25", "50", "75", "100"])
    axes.tick_params(length=2)


def logarithmic(axes: Axes) -> None:
    """Powers of ten across, written as plain numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def grid(panels: int, same_scale: bool = True) -> tuple[Figure, list[Any]]:
    """Small multiples, at most five across."""
    across = min(panels, 5 if panels in (5, 9, 10) or panels > 12 else 4)
    down = math.ceil(panels / across)
    drawn = figure(*((min(12.2, 3.05 * across), 2.05 * down + 0.6) if across > 1 else (6.2, 3.6)))
    panes = list(np.atleast_1d(drawn.subplots(down, across, sharey=same_scale)).flat)
    for pane in panes[:panels]:
        pane.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for spare in panes[panels:]:
        spare.remove()
    return drawn, panes[:panels]


def legend(drawn: Figure, panes: Sequence[Any]) -> None:
    """One legend for all panels, above them."""
    handles, names = panes[0].get_legend_handles_labels()
    if len(names) > 1:
        drawn.legend(
            handles, names, loc="outside upper left", ncols=max(1, int(drawn.get_figwidth() / 2.1))
        )
