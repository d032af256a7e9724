"""Numbers, times and names as people read them: the filters of the templates."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from robench.errors import printable

NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


class Entry(NamedTuple):
    """An accuracy with both ends of its 95% interval, in per cent."""

    value: str
    low: str
    high: str


def entry(row: Any, column: str) -> Entry | None:
    """From a row of the leaderboard; None where it has no such number."""
    if math.isnan(row.get(column, math.nan)):
        return None
    return Entry(*(percent(row[column + end]) for end in ("", "_low", "_high")))


def interval(row: Any, column: str, unit: str = "") -> str:
    """`71.2 (68.9–73.4)`."""
    shown = entry(row, column)
    return f"{shown.value}{unit} ({shown.low}–{shown.high})" if shown else "–"


def signed(value: float) -> str:
    """A difference in percentage points, with a true minus sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


def seconds(value: float) -> str:
    """`8 ms`, `0.4 s`, `12 s`, `3 min 20 s`, `2 h 05 min`."""
    if 0 < value < 0.095:
        return f"{1000 * value:.2g} ms"
    if value < 10:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left:02d} min" if hours else f"{minutes} min {rest:02d} s"


def shorten(text: str, length: int = 80) -> str:
    text = str(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def image_count(met: Iterable[int], asked: int) -> str:
    """How many test images rows rest on, `360` or `360–500`: a data set may have fewer than the
    card asks for. Where no row has any outcome, what was asked."""
    counts = [int(count) for count in met if count] or [asked]
    least, most = min(counts), max(counts)
    return str(most) if least == most else f"{least}–{most}"


def portable(command: str) -> str:
    """A command without the options that name a place on one machine."""
    return re.sub(r"\s(--workspace|--store|--out|-w)[ =](/|~|[A-Za-z]:)\S*", "", command)


PAPERS = {
    r"\barXiv[: ]*(\d{4}\.\d{4,5})\b": "https://arxiv.org/abs/",
    r"\bOpenReview[: ]*([\w-]{8,})": "https://openreview.net/forum?id=",
    r"\b(10\.\d{4,9}/[\w.()/:-]+[\w)])": "https://doi.org/",
}
"""How a card names a paper, in words of regular expressions that pages' scripts share, and where
papers that are named so are found."""


def _paper(text: str) -> tuple[re.Match[str], str] | None:
    matches = ((re.search(how, text, re.IGNORECASE), where) for how, where in PAPERS.items())
    return next(((match, where + match[1]) for match, where in matches if match), None)


def paper_link(text: str) -> str:
    """Where the paper is that a card names by DOI, arXiv or OpenReview number; empty where it names
    none."""
    named = _paper(text)
    return named[1] if named else ""


def linked(text: str) -> Markup:
    """Escaped, and the number of the paper that it names a link to it."""
    named = _paper(str(text))
    if named is None:
        return escape(text)
    match, where = named
    link = Markup('<a href="{}" rel="noreferrer">{}</a>').format(where, match[0])
    return escape(text[: match.start()]) + link + escape(text[match.end() :])


def cell(text: object) -> str:
    """`text` as it stands in a Markdown table: no markup of its own, no line break."""
    said = printable(text)
    for special in "\\`|[":
        said = said.replace(special, f"\\{special}")
    return said.replace("<", "&lt;")


def own_name(plugin: str) -> str:
    """What a plugin is called: of one in a workspace's file, `./plane.py:Clouds`, the class."""
    return re.sub(r"^\./[^:]*\.py:", "", plugin)


def coded(text: str) -> Markup:
    """Escaped, and what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def of_items(text: str, items: str) -> str:
    """A sentence that speaks of images, where the items are others, such as the nodes of a graph;
    names with the word in them stay as they are."""
    if items == "images":
        return text
    one = items.removesuffix("s")
    text = text.replace("er-image worst case", f"er-{one} worst case")
    text = re.sub(r"(?<![\w/@-])image(s?)(?![\w/@-])", rf"{one}\1", text)
    return re.sub(r"(?<![\w/@-])Image(s?)(?![\w/@-])", rf"{one.capitalize()}\1", text)


def breakable(text: str) -> Markup:
    """Escaped, with places where a narrow column may break the line."""
    return Markup(re.sub(r"([/_-])", r"\1<wbr>", str(escape(text))))


def counted(report: Mapping[str, Any]) -> list[str]:
    """By which rule answers count as right, in sentences; nothing where it is the usual one."""
    said = []
    if (top_k := report.get("top_k", 1)) > 1:
        said.append(
            f"Top-{top_k}: a label counts as answered where it is among the {top_k} likeliest "
            "classes; the attacks are after that, too, but those of libraries, which stop at the "
            "first."
        )
    if report.get("labels", "true") == "predicted":
        said.append(
            "Against predicted labels: what a network itself answers to the clean image counts as "
            "right, so that 100% minus an accuracy is how often it is fooled."
        )
    return said


def towards(threat: Mapping[str, Any]) -> str:
    """The class that a targeted attack aims at: `class 3`, `the likeliest wrong class`."""
    aim = threat.get("aim")
    words = {"likeliest": "the likeliest wrong class", "least-likely": "the least likely class"}
    words["each"] = "each wrong class in turn"
    return words.get(str(aim), f"class {aim}")


def budget(threat: Mapping[str, Any]) -> str:
    """The ball of an attack as people read it: `L∞ ≤ 8/255`."""
    return f"{NORMS.get(threat['norm'], threat['norm'])} ≤ {radius(threat['eps'])}"


def radius(eps: float | str) -> str:
    """A radius as the field writes it: `8/255` where it is so many steps of a byte, else a
    decimal."""
    eps = float(eps)  # infinities are texts in JSON
    steps = eps * 255
    if math.isinf(eps):
        return "∞"
    if len(f"{eps:g}") > 4 and 0 < steps <= 64 and abs(steps - round(steps)) < 1e-4:
        return f"{round(steps)}/255"
    return f"{eps:g}"


def sha256(text: str) -> str:
    """As a content security policy wants it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
