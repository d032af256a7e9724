"""How a page is cited: an entry of BibTeX with its date, version and threat set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from robench.show.report.text import shorten

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{char: "\\" + char for char in "&%$#_{}"},
}


def measured_on(manifest: Mapping[str, Any]) -> str:
    """The day on which the last piece of a report was made, `2026-11-28`; empty where its manifest
    does not say (those of before did not)."""
    day = re.match(r"\d{4}-(0[1-9]|1[0-2])-\d\d", str(manifest.get("finished", "")))
    return day[0] if day else ""


def bibtex(manifest: Mapping[str, Any]) -> str:
    """An entry for the page, whatever its title holds."""
    report, day = manifest["report"], measured_on(manifest)
    key = re.sub(r"[^A-Za-z0-9:-]", "-", shorten(report["name"], 60))
    version = tex(shorten(str(manifest["robench"]), 20))
    threats = tex(str(manifest["threat_set"])[:10])
    lines = [
        f"@misc{{robench-{key},",
        "  author = {{The robench authors}},",
        f"  title = {{{{{tex(shorten(report['title'], 300))}}}}},",
        *([f"  year = {{{day[:4]}}},", f"  month = {MONTHS[int(day[5:7]) - 1]},"] if day else []),
        f"  note = {{robench {version}, report {tex(shorten(report['name'], 60))}, "
        f"threat set {threats}{f', measured {day}' if day else ''}}},",
        "}",
    ]
    return "\n".join(lines)


def tex(text: str) -> str:
    """On one line, and nothing in it that TeX would obey."""
    return "".join(SPECIAL.get(char, char) for char in " ".join(text.split()))
