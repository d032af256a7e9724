"""The performance page: a sentence and a picture for each question, from what benchmarks recorded.

Every ratio on it is a time divided by robench's for the same work: 1.00 is robench.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import jinja2
from matplotlib.ticker import NullFormatter

from robench.show.report.around import around
from robench.show.report.plots.figure import figure, legend, style, svg
from robench.show.report.text import sha256

HERE = Path(__file__).parent
Tables = Mapping[str, Mapping[str, Any]]

REFERENCES = {
    "imagenet-c": "fast",
    "Quickstart": "robench run, one process",
    "Resume": "again",
}
"""What is robench's own side, by how a table's title begins, where no side is called robench."""
RESNET = "standard on ResNet-18, CIFAR-10"


@dataclass(frozen=True)
class Bar:
    """A side beside robench's for the same work. ratio: its time / robench's, where measured."""

    label: str
    side: str
    ratio: float | None


@dataclass(frozen=True)
class Question:
    """What the page answers: a sentence, and a picture of bars or of lines."""

    asked: str
    sentence: str
    about: str
    bars: list[Bar] = field(default_factory=list)
    most: float = 1.0
    """The ratio at which a bar is as long as there is room."""
    picture: str = ""


def questions(tables: Tables) -> list[Question]:
    return [_beside(tables), _limit(tables), _gpu(tables), _growth(tables), _start(tables)]


def milliseconds(tables: Tables, title: str, side: str) -> float | None:
    rows = tables.get(title, {}).get("rows", [])
    return next((float(row["ms"]) for row in rows if row["side"] == side), None)


def reference(title: str, rows: Sequence[Mapping[str, Any]]) -> float | None:
    """robench's milliseconds in a table; None where nothing of it is robench beside another."""
    wanted = {"robench", *(side for start, side in REFERENCES.items() if title.startswith(start))}
    return next((float(row["ms"]) for row in rows if row["side"] in wanted), None)


def _bar(
    tables: Tables, label: str, title: str, side: str, ours: str = "robench", shown: str = ""
) -> Bar:
    one, own = milliseconds(tables, title, side), milliseconds(tables, title, ours)
    return Bar(label, shown or side, one / own if one and own else None)


def _known(bars: Sequence[Bar]) -> list[tuple[Bar, float]]:
    return [(bar, bar.ratio) for bar in bars if bar.ratio is not None]


def _ends(known: Sequence[tuple[Bar, float]]) -> tuple[tuple[Bar, float], tuple[Bar, float]]:
    """The least and the greatest ratio."""
    return min(known, key=lambda one: one[1]), max(known, key=lambda one: one[1])


def _beside(tables: Tables) -> Question:
    pgd = [
        _bar(tables, f"PGD, 15 steps, {what}{where}", f"{gpu}PGD, 15 steps, {short}", peer)
        for gpu, where in (("", ""), ("GPU: ", ", GPU"))
        for short, what in (("cnn", "convolutional network"), ("mlp", "perceptron"))
        for peer in ("foolbox", "torchattacks", "art")
        if not (gpu and peer == "torchattacks")
    ]
    spiking = [
        _bar(tables, f"Spiking network, {way}", f"Spiking network, {way}: {peer}", peer)
        for way in ("forward", "forward and backward")
        for peer in ("snntorch", "spikingjelly", "spikingjelly, multi-step")
    ]
    square = _bar(
        tables, "Square, 200 queries", "Other attacks, mlp", "art square, 200",
        "square, 200 queries", "art",
    )  # fmt: skip
    corruptions = [
        _bar(tables, f"ImageNet-C, {size} pixels", f"imagenet-c, {size}", "packaged", "fast",
             "imagecorruptions")
        for size in ("32x32", "64x64", "224x224")
    ]  # fmt: skip
    ensemble = _bar(
        tables, "The standard ensemble, ResNet-18", RESNET, "AutoAttack", shown="AutoAttack"
    )
    bars = [*pgd, square, ensemble, *spiking, *corruptions]
    known = _known(bars)
    sentence = "Not measured."
    if known:
        low, high = _ends(known)
        slower = sum(ratio > 1 for _, ratio in known)
        of = f"all {slower}" if slower == len(known) else f"{slower} of {len(known)}"
        sentence = (
            f"In {of} comparisons the other library takes longer than robench, "
            f"in the median {median(ratio for _, ratio in known):.1f} times as long: from "
            f"{_said(low)} to {_said(high)}."
        )
    return Question(
        "How fast is it, beside whom?",
        sentence,
        "The same work, done by other libraries: the same steps, sizes and images. robench lets go "
        "of images that are broken, where an attack may; that is part of its time here.",
        bars,
        _most(known),
    )


def _limit(tables: Tables) -> Question:
    everyone = "robench, no one leaves"
    bars = [
        *(
            _bar(tables, f"PGD, 15 steps, {what}", title, bare, everyone, "bare passes and steps")
            for what, title, bare in (
                ("convolutional network", "PGD, 15 steps, cnn", "floor"),
                ("perceptron", "PGD, 15 steps, mlp, in 11 fresh processes", "floor"),
                ("convolutional network, GPU", "GPU: PGD, 15 steps, cnn", "floor as one graph"),
                ("perceptron, GPU", "GPU: PGD, 15 steps, mlp", "floor as one graph"),
            )
        ),
        _bar(tables, "The standard ensemble, ResNet-18", RESNET, "bare passes"),
        *(
            _bar(tables, title, title, "forward passes")
            for space in ("image", "tanh")
            for short in ("cnn", "mlp")
            for title in (f"NAttack, 5 x 100, {space} space, {short}",)
        ),
        *(
            _bar(tables, f"GLR update, {pairs}", f"GLR update, {pairs}",
                 "its normals and matrix products")
            for pairs in ("none", "antithetic", "factorial")
        ),
        *(
            _bar(tables, f"GLR update, {pairs}, GPU", f"GPU: GLR update, {pairs}", "its normals")
            for pairs in ("none", "antithetic", "factorial")
        ),
        *(
            _bar(tables, f"NIT update, {what}", f"NIT update, {what}", "the three, each alone",
                 shown="normals, membranes, products")
            for what in ("none, all steps", "antithetic, all steps", "factorial, the last 2 steps")
        ),
        _bar(tables, "The quickstart from nothing", "Quickstart from nothing", "the sum of these",
             "robench run, one process", "its passes, updates, corruptions"),
    ]  # fmt: skip
    known = _known(bars)
    sentence = "Not measured."
    if known:
        low, high = _ends(known)
        sentence = (
            "What the work cannot do without takes, in the median, "
            f"{100 * median(ratio for _, ratio in known):.0f}% of robench's time: from "
            f"{100 * low[1]:.0f}% ({low[0].label}) to {100 * high[1]:.0f}% ({high[0].label})."
        )
    return Question(
        "How near is it to the limit?",
        sentence,
        "The limit is the bare work, timed alone: as many passes, steps and random numbers (on the "
        "GPU of PGD as one recorded graph, of GLR the random numbers alone). At 1.00 robench takes "
        "no longer than that. Of PGD no image leaves early here.",
        bars,
        max(1.0, _most(known)),
    )


def _gpu(tables: Tables) -> Question:
    pairs = [
        ("PGD, 15 steps, convolutional network", "PGD, 15 steps, cnn", "robench",
         "GPU: PGD, 15 steps, cnn", "robench"),
        ("PGD, 15 steps, perceptron", "PGD, 15 steps, mlp", "robench",
         "GPU: PGD, 15 steps, mlp", "robench"),
        *((f"GLR update, {how}", f"GLR update, {how}", "robench",
           f"GPU: GLR update, {how}", "robench") for how in ("none", "antithetic", "factorial")),
        ("NIT update, 40 copies", "NIT update, none, all steps", "robench",
         "GPU: one update of a spiking network", "NIT, C = 40"),
        ("NIT update, factorial, last 2 steps", "NIT update, factorial, the last 2 steps",
         "robench", "GPU: one update of a spiking network", "NIT, C = 40, factorial, last 2 steps"),
    ]  # fmt: skip
    bars = []
    for label, title, side, on_gpu, its_side in pairs:
        cpu, gpu = milliseconds(tables, title, side), milliseconds(tables, on_gpu, its_side)
        bars.append(Bar(label, "one CPU thread", cpu / gpu if cpu and gpu else None))
    known = _known(bars)
    sentence = "Not measured."
    if known:
        low, high = _ends(known)
        sentence = (
            "One CPU thread takes, in the median, "
            f"{median(ratio for _, ratio in known):.0f} times as long as robench on the GPU: from "
            f"{low[1]:.1f} times ({low[0].label}) to {high[1]:.0f} times ({high[0].label})."
        )
    return Question(
        "What does a GPU bring?",
        sentence,
        "The same work by robench on one thread of a CPU and on an H100, on two machines; 1.00 is "
        "robench on the GPU here.",
        bars,
        _most(known),
    )


GROWTH = {
    "draws of a noisy model (EOT)": (
        "EOT, one gradient, cnn", r"(\d+) draws",
        "a gradient of {many:g} times as many draws takes {long:.2g} times as long",
    ),
    "cells, planned": (
        "Large reports", r"plan, ([\d,]+) cells",
        "planning {many:g} times as many cells takes {long:.2g} times as long",
    ),
    "cells, resumed": (
        "Large reports", r"resume, ([\d,]+) cells",
        "going on with {many:g} times as many takes {long:.2g} times as long",
    ),
    "processes (--jobs)": (
        "Executors", r"--jobs (\d+)",
        "{many:g} times as many processes need {long:.0%} of the time",
    ),
    "nodes of a cluster (--ray)": (
        "Executors", r"--ray, nodes of one core: (\d+)",
        "{many:g} times as many nodes of a cluster {long:.0%}",
    ),
}  # fmt: skip


def _growth(tables: Tables) -> Question:
    lines: dict[str, list[tuple[float, float]]] = {}
    for label, (title, pattern, _) in GROWTH.items():
        points = [
            (float(found[1].replace(",", "")), float(row["ms"]))
            for row in tables.get(title, {}).get("rows", [])
            if (found := re.fullmatch(pattern, row["side"]))
        ]
        if len(points) > 1:
            lines[label] = [(x / points[0][0], y / points[0][1]) for x, y in points]
    asked = "How does it grow?"
    if not lines:
        return Question(asked, "Not measured.", "")
    said = [
        GROWTH[label][2].format(many=points[-1][0], long=points[-1][1])
        for label, points in lines.items()
    ]
    with style():
        drawn = figure(6.4, 3.8)
        axes: Any = drawn.subplots()
        longest = max(points[-1][0] for points in lines.values())
        axes.plot([1, longest], [1, longest], color="0.5", ls=":", label="as much more")
        for (label, points), mark in zip(lines.items(), "os^Dv", strict=False):
            axes.plot(*zip(*points, strict=True), marker=mark, label=label)
        axes.set(xscale="log", yscale="log", xlabel="times as many", ylabel="times as long")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        legend(drawn, [axes])
        picture = svg(drawn, "growth", "How time grows with the work")
    return Question(
        asked,
        f"{said[0][0].upper()}{'; '.join(said)[1:]}.",
        "Each line is relative to its own smallest size; on the dotted one time grows as the work "
        "does. More processes and nodes share the same work, on two cores.",
        picture=picture,
    )


def _start(tables: Tables) -> Question:
    sides = [
        ("Starting Python", "Start-up", "python"),
        ("import robench", "Start-up", "import robench"),
        ("robench --help", "Start-up", "robench --help"),
        ("robench list models", "Start-up", "robench list models"),
        ("import torch", "Start-up", "import torch"),
        ("a finished report of 132 cells, run again,", "Resume: 3 trainings, 132 cells", "again"),
    ]
    found = [(label, milliseconds(tables, title, side)) for label, title, side in sides]
    known = [(label, ms) for label, ms in found if ms is not None]
    asked = "How long until something happens?"
    if not known:
        return Question(asked, "Not measured.", "")
    times = dict(known)
    told = ("robench list models", "a finished report of 132 cells, run again,")
    said = [f"{label} takes {ms / 1000:.2g} s of CPU time" for label, ms in known if label in told]
    torch = times.get("import torch")
    beside = f"; importing torch alone takes {torch / 1000:.2g} s" if torch else ""
    most, text = max(times.values()), "; ".join(said) + beside + "."
    bars = [Bar(label.rstrip(","), f"{ms / 1000:.2f} s", ms / most) for label, ms in known]
    return Question(
        asked, text,
        "CPU seconds of whole processes. These bars are seconds, not ratios.", bars,
    )  # fmt: skip


def _most(known: Sequence[tuple[Bar, float]]) -> float:
    return max([1.0, *(ratio for _, ratio in known)])


def _said(one: tuple[Bar, float]) -> str:
    bar, ratio = one
    return f"{ratio:.2g} ({bar.side}, {bar.label})"


def _ratio(value: float) -> str:
    """With three digits: `0.08`, `1.82`, `14.2`, `198`."""
    return f"{value:.{0 if value >= 99.5 else 1 if value >= 9.95 else 2}f}"


def write_page(folder: Path, measured: Mapping[str, dict[str, Any]]) -> None:
    """Tables into the folder's results.json, such as those of another machine, its page and what an
    index says of it."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / "results.json"
    tables = json.loads(stored.read_text()) if stored.exists() else {}
    tables = dict(sorted({**tables, **measured}.items()))
    stored.write_text(json.dumps(tables, indent=1) + "\n")
    asked = questions(tables)
    about = {
        "title": "Performance: how fast robench is",
        "subject": "Performance",
        "headline": [one.sentence for one in asked[:3]],
    }
    (folder / "about.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.FileSystemLoader(HERE),
                jinja2.PackageLoader("robench.show.report", "templates"),
            ]
        ),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    assets = files("robench.show.report") / "assets"
    script = (assets / "scroll.js").read_text("utf-8")
    page = environment.get_template("performance.html.j2").render(
        tables=tables,
        questions=asked,
        references={title: reference(title, table["rows"]) for title, table in tables.items()},
        style=(assets / "page.css").read_text("utf-8"),
        script=script,
        script_hash=sha256(script),
        around=around(folder),
        ratio=_ratio,
    )
    (folder / "index.html").write_text(page)


if __name__ == "__main__":  # the page of what is recorded, without measuring anything
    write_page(HERE.parents[1] / "reports" / "performance", {})
