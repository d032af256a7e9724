"""A static site of many reports: each in its folder, and an index of them all."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from robench.report import PAGE, _write, write_report
from robench.results import Results


@dataclass(frozen=True)
class Entry:
    """A line of the index."""

    name: str
    title: str
    description: str
    models: int
    threats: int
    cells: int
    missing: int
    best: str
    """Which model leads on each data set, with its worst case."""


def write_site(reports: dict[str, Results], site: Path) -> Path:
    """Write every report into SITE/NAME/ and SITE/index.html; what is up to date stays untouched.

    Returns the path of the index. Raises RobenchError when the folder cannot be written.
    """
    entries = []
    for name, results in sorted(reports.items()):
        write_report(results, site / name)
        entries.append(_entry(name, results))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("robench.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style = (files("robench.report") / "assets" / "page.css").read_text("utf-8")
    index = environment.get_template("site.html.j2").render(entries=entries, style=style)
    _write(site / PAGE, index.encode())
    return site / PAGE


def _entry(name: str, results: Results) -> Entry:
    from robench.leaderboard import leaderboard

    card: dict[str, Any] = results.manifest["report"]
    table = leaderboard(results)
    leaders = [
        f"{group.iloc[0]['model']} ({100 * group.iloc[0]['worst_case']:.1f}% on {dataset})"
        for dataset, group in table[table["complete"]].groupby("dataset", sort=False)
    ]
    cells = results.manifest["cells"]
    return Entry(
        name=name,
        title=card["title"],
        description=card.get("description", ""),
        models=len(results.models),
        threats=len(results.threats) - 1,
        cells=len(cells),
        missing=sum(cell["status"] != "done" for cell in cells),
        best=", ".join(leaders),
    )
