"""A static site of many reports: each in its folder, and an index of them all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robench.errors import RobenchError, cause
from robench.show.leaderboard import ranked_by
from robench.show.report.around import Neighbour, neighbours
from robench.show.report.folder import PAGE, _write, write_report
from robench.show.report.templating import page_of
from robench.show.report.text import image_count, shorten
from robench.show.results import Results
from robench.store.files import read_regular

LEADERS = 3  # models of each data set that the index shows
DATASETS = 4  # data sets of a report that it shows
ABOUT = "about.json"
"""By which a page that is no report says what it is."""
STYLES = ("page.css", "site.css")
TONES = {
    "settled": "good",
    "believable": "good",
    "unchecked": "open",
    "doubtful": "bad",
    "incomplete": "open",
    "holds": "good",
    "does not hold": "bad",
}
TITLES = {
    "worst_case": "Worst case",
    "clean": "Clean",
    "average_corruptions": "Corrupted, mean",
}


@dataclass(frozen=True)
class Entry:
    """A page on the index."""

    name: str
    title: str
    subject: str
    """What it is filed under."""
    headline: list[str]
    """What it found, in sentences."""
    finished: str = ""
    """The day on which it was measured; empty: not known."""
    facts: str = ""
    """How many models met what."""
    paper: str = ""
    verdicts: dict[str, int] = field(default_factory=dict)
    """How many models are settled, believable, doubtful, unchecked, incomplete."""
    claims: list[dict[str, str]] = field(default_factory=list)
    by: str = ""
    """The column that leaders are ranked by, and their bars show."""
    beside: str = ""
    """That which is shown beside it; empty: none."""
    leaders: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Rows of leaderboard.json: the best ranked models of each data set."""
    more: int = 0
    """Data sets that are left out."""


def write_site(
    reports: Mapping[str, Results],
    site: Path,
    *,
    subjects: Mapping[str, str] | None = None,
    beside: Path | None = None,
) -> Path:
    """Write every report into SITE/NAME/ and SITE/index.html; what is up to date stays untouched.

    Args:
        subjects: what reports are filed under, by name; else what their cards said when they were
            run, or the names of their data sets.
        beside: folder of which pages that are no reports are taken into the site: those that
            say what they are in an about.json (title, subject, headline, finished).

    Returns the path of the index. Raises RobenchError when the folder cannot be written.
    """
    filed = {
        name: (shorten(str(results.manifest["report"]["title"]), 120), _subject(results, named))
        for name, results in reports.items()
        for named in [(subjects or {}).get(name, "")]
    }
    others = _taken_along(beside, site) if beside else []
    filed |= {entry.name: (entry.title, entry.subject) for entry in others}
    order = sorted(filed, key=lambda name: (filed[name][1].casefold(), name))
    pages = [Neighbour(name, filed[name][0]) for name in order]
    entries = {entry.name: entry for entry in others}
    for name, results in reports.items():
        page = write_report(results, site / name, within=neighbours(pages, name))
        document = json.loads(page.with_name("leaderboard.json").read_text("utf-8"))
        entries[name] = _entry(name, filed[name][1], results, document)
    groups: dict[str, list[Entry]] = {}
    for name in order:
        groups.setdefault(filed[name][1], []).append(entries[name])
    _write(site / PAGE, _index(groups, pages).encode())
    return site / PAGE


def _index(groups: Mapping[str, list[Entry]], pages: Sequence[Neighbour]) -> str:
    return page_of(
        "site.html.j2", ("scroll.js",), STYLES,
        groups=groups,
        anchors={subject: f"s{place}" for place, subject in enumerate(groups)},
        count=sum(map(len, groups.values())),
        pages=json.dumps([[page.name, page.title] for page in pages], ensure_ascii=False),
        tones=TONES,
        titles=TITLES,
    )  # fmt: skip


def _subject(results: Results, named: str) -> str:
    """What a report is filed under: as its card says, else by the data that its models meet."""
    said = named or str(results.manifest["report"].get("subject") or "")
    sets = dict.fromkeys(str(model["card"]["dataset"]["name"]) for model in results.models)
    return shorten(said or ", ".join(sets) or "Other", 60)


def _taken_along(beside: Path, site: Path) -> list[Entry]:
    """Pages of a folder that are no reports, copied into the site where that lies elsewhere."""
    entries = []
    for about in sorted(beside.glob(f"*/{ABOUT}")):
        try:
            said = json.loads(read_regular(about))
            entry = Entry(
                about.parent.name,
                str(said["title"]),
                str(said["subject"]),
                [str(sentence) for sentence in said["headline"]],
                str(said.get("finished") or ""),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RobenchError(
                f"{about}: says no title, subject and headline ({cause(error)}); "
                "make the page anew, or remove the file"
            ) from error
        entries.append(entry)
        if beside.resolve() != site.resolve():
            for file in about.parent.iterdir():
                if file.is_file():
                    _write(site / entry.name / file.name, file.read_bytes())
    return entries


def _entry(name: str, subject: str, results: Results, document: Mapping[str, Any]) -> Entry:
    """document: the report's leaderboard.json."""
    card: dict[str, Any] = results.manifest["report"]
    rows: list[dict[str, Any]] = document["rows"]
    by = ranked_by(results)
    ranked: dict[str, list[dict[str, Any]]] = {}
    for row in rows if results.searched or by != "worst_case" else ():
        if row["rank"] is not None and row[by] is not None:
            ranked.setdefault(row["dataset"], []).append(row)
    missing = sum(cell["status"] != "done" for cell in results.manifest["cells"])
    met = image_count((row["images"] for row in rows), card["images"])
    counts = {
        "model": len(results.models),
        "attack": len(results.attacks),
        "proof": len(results.proofs),
        "corruption": len(results.kinds),
    }
    facts = [_counted(count, what) for what, count in counts.items() if count]
    facts.append(f"{met} test {results.items}")
    if missing:
        facts.append(f"{_counted(missing, 'cell')} missing")
    return Entry(
        name=name,
        title=card["title"],
        subject=subject,
        headline=document["headline"],
        finished=document["finished"] or "",
        facts=", ".join(facts),
        paper=card.get("paper", ""),
        verdicts=_verdicts(rows),
        claims=document["claims"],
        by=by,
        beside="" if by == "clean" else "clean",
        leaders={dataset: ranked[dataset][:LEADERS] for dataset in list(ranked)[:DATASETS]},
        more=max(len(ranked) - DATASETS, 0),
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _verdicts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many models are of each verdict; without attacks only alarms are one."""
    counts = Counter(
        row["verdict"]
        for row in rows
        if row.get("verdict") and (row["worst_case"] is not None or row["alarms"])
    )
    counts["settled"] = sum(row.get("open") is not None and row["open"] < 1e-9 for row in rows)
    counts["incomplete"] = sum(not row["complete"] for row in rows)
    order = [verdict for verdict in TONES if counts[verdict]]
    return {verdict: counts[verdict] for verdict in order}
