"""A static site of many reports: each in its folder, and an index of them all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from robench.leaderboard import ranked_by
from robench.report import PAGE, _write, write_report
from robench.report.text import image_count, shorten
from robench.results import Results

LEADERS = 3  # models of each data set that the index shows
DATASETS = 3  # data sets of a report that it shows
TITLES = {
    "worst_case": "Worst case",
    "clean": "Clean",
    "average_corruptions": "Corrupted, mean",
}


@dataclass(frozen=True)
class Leader:
    """One of the first rows of a report, in per cent."""

    model: str
    rank: int
    verdict: str
    alarms: int
    headline: tuple[float, float, float]
    """What it is ranked by, with its 95% interval."""
    beside: float | None
    proved: float | None
    """The other end of a worst case, where there is one."""


@dataclass(frozen=True)
class Entry:
    """A report on the index."""

    name: str
    title: str
    description: str
    paper: str
    models: int
    attacks: int
    corruptions: int
    images: str
    missing: int
    threat_set: str
    headline: str
    """What the leaders are ranked by, and their bars show."""
    beside: str
    """What is shown beside it; empty: nothing."""
    leaders: dict[str, list[Leader]]
    """The best ranked models of each data set."""
    more: int
    """Data sets that are left out."""


def write_site(reports: dict[str, Results], site: Path) -> Path:
    """Write every report into SITE/NAME/ and SITE/index.html; what is up to date stays untouched.

    Returns the path of the index. Raises RobenchError when the folder cannot be written.
    """
    entries = []
    for name, results in sorted(reports.items()):
        page = write_report(results, site / name)
        rows = json.loads(page.with_name("leaderboard.json").read_text("utf-8"))["rows"]
        entries.append(_entry(name, results, rows))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("robench.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["shorten"] = shorten
    style = (files("robench.report") / "assets" / "page.css").read_text("utf-8")
    index = environment.get_template("site.html.j2").render(entries=entries, style=style)
    _write(site / PAGE, index.encode())
    return site / PAGE


def _entry(name: str, results: Results, rows: list[dict[str, Any]]) -> Entry:
    """rows: of the report's leaderboard.json."""
    card: dict[str, Any] = results.manifest["report"]
    headline = ranked_by(results)
    beside = "" if headline == "clean" else "clean"
    ranked: dict[str, list[Leader]] = {}
    for row in rows:
        if row["rank"] is not None and row[headline] is not None:
            ranked.setdefault(row["dataset"], []).append(_leader(row, headline, beside))
    return Entry(
        name=name,
        title=card["title"],
        description=card.get("description", ""),
        paper=card.get("paper", ""),
        models=len(results.models),
        attacks=len(results.attacks),
        corruptions=len(results.kinds),
        images=image_count((row["images"] for row in rows), card["images"]),
        missing=sum(cell["status"] != "done" for cell in results.manifest["cells"]),
        threat_set=results.manifest["threat_set"],
        headline=TITLES[headline],
        beside=TITLES.get(beside, ""),
        leaders={dataset: ranked[dataset][:LEADERS] for dataset in list(ranked)[:DATASETS]},
        more=max(len(ranked) - DATASETS, 0),
    )


def _leader(row: dict[str, Any], headline: str, beside: str) -> Leader:
    value, low, high = (100 * row[f"{headline}{end}"] for end in ("", "_low", "_high"))
    alarms = len(row.get("alarms", []))
    return Leader(
        model=row["model"],
        rank=row["rank"],
        verdict=row.get("verdict", "") if alarms or headline == "worst_case" else "",
        alarms=alarms,
        headline=(value, low, high),
        beside=100 * row[beside] if beside and row[beside] is not None else None,
        proved=100 * row["proved"] if row.get("proved") is not None else None,
    )
