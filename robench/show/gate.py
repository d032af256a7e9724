"""What a build server asks of a report: least accuracies, as an exit code, JUnit XML and
Markdown."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd

from robench.errors import RobenchError, nearest, printable
from robench.show.diagnostics.verdicts import diagnose
from robench.show.leaderboard import SUMMARY, leaderboard
from robench.show.report.text import percent
from robench.show.results import Results

SHORT = {"average_attacks": "average over attacks", "average_corruptions": "over corruptions"}


@dataclass(frozen=True)
class Least:
    """A least accuracy: of which models (a pattern), in which column of the leaderboard."""

    models: str
    column: str
    accuracy: float
    said: str


@dataclass(frozen=True)
class Check:
    """One model held against one least accuracy. value, low, high: its accuracy and both ends of
    its 95% interval, in [0, 1]; NaN where there is none, which fails."""

    model: str
    least: Least
    value: float
    low: float
    high: float

    @property
    def passed(self) -> bool:
        return self.value >= self.least.accuracy

    @property
    def text(self) -> str:
        if math.isnan(self.value):
            found = "has no number"
        else:
            ends = f"{percent(self.low)}–{percent(self.high)}"
            found = f"{percent(self.value)}% ({ends})"
        return (
            f"{self.model}: {self.least.column} {found}, at least {percent(self.least.accuracy)}%"
        )


def parse(texts: Iterable[str]) -> list[Least]:
    """`worst_case=0.4`, or for some models `digits/mlp-*:worst_case=0.4`.

    Raises RobenchError for what is neither.
    """
    found = []
    for text in texts:
        models, colon, asked = text.rpartition(":")
        column, equals, number = asked.rpartition("=")
        try:
            accuracy = float(number)
        except ValueError:
            accuracy = math.nan
        if not (equals and column and 0 <= accuracy <= 1):
            raise RobenchError(
                f"--fail-under {text}: say COLUMN=ACCURACY with an accuracy in [0, 1], as in "
                "worst_case=0.4, or for some models 'digits/*:clean=0.9'"
            )
        found.append(Least(models if colon else "*", column, accuracy, text))
    return found


def hold(results: Results, wanted: Sequence[Least]) -> list[Check]:
    """Every model that a least accuracy is meant for, held against it.

    Raises RobenchError for a column or a pattern that names nothing.
    """
    table = leaderboard(results)
    known = [name for name in table.columns if f"{name}_low" in table.columns]
    checks = []
    for least in wanted:
        if least.column not in known:
            raise RobenchError(
                f"--fail-under {least.said}: no column {least.column!r}; "
                f"{nearest(least.column, known)}"
            )
        rows = [row for _, row in table.iterrows() if fnmatchcase(row["model"], least.models)]
        if not rows:
            raise RobenchError(
                f"--fail-under {least.said}: matches no model; "
                f"{nearest(least.models, table['model'])}"
            )
        for row in rows:
            value, low, high = (float(row[least.column + end]) for end in ("", "_low", "_high"))
            checks.append(Check(row["model"], least, value, low, high))
    return checks


def junit(results: Results, checks: Sequence[Check]) -> bytes:
    """JUnit XML: a test case for each least accuracy and model, and for each piece of work that
    failed or is missing."""
    suite = ET.Element("testsuite", name=f"robench {results.name}")
    for check in checks:
        case = ET.SubElement(
            suite, "testcase", classname=printable(check.model), name=printable(check.least.said)
        )
        if not check.passed:
            ET.SubElement(case, "failure", message=printable(check.text)).text = printable(
                check.text
            )
    for gap in results.failures():
        case = ET.SubElement(
            suite,
            "testcase",
            classname=printable(gap["model"]),
            name=printable(f"seed {gap['seed']}"),
        )
        message = printable(f"{gap['status']}: {gap['of']}: {gap['error']}")
        ET.SubElement(case, "error", message=message).text = message
    cases = list(suite)
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    suite.set("errors", str(sum(case.find("error") is not None for case in cases)))
    ET.indent(suite)
    made: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return made + b"\n"


def markdown(results: Results, checks: Sequence[Check]) -> str:
    """The leaderboard as a Markdown table, then each least accuracy with what became of it."""
    table, verdicts = leaderboard(results), diagnose(results)
    columns = [name for name in ("worst_case", "clean", *SUMMARY[1:]) if table[name].notna().any()]
    names = [SHORT.get(name, name.replace("_", " ")) for name in columns]
    lines = [
        f"### {cell(results.manifest['report'].get('title') or results.name)}",
        "",
        f"| model | {' | '.join(names)} | diagnostics |",
        f"| --- | {' | '.join('---' for _ in names)} | --- |",
    ]
    for _, row in table.iterrows():
        numbers = " | ".join(_shown(row, name) for name in columns)
        said = verdicts[row["model"]]["verdict"] if row["model"] in verdicts else "–"
        lines.append(f"| {cell(row['model'])} | {numbers} | {cell(said)} |")
    if checks:
        lines += [
            "",
            *(f"- {'passed' if c.passed else '**failed**'}: {cell(c.text)}" for c in checks),
        ]
    gaps = results.failures()
    if gaps:
        lines += [
            "",
            *(f"- {cell(g['status'])}: {cell(g['model'])}: {cell(g['of'])}" for g in gaps),
        ]
    return "\n".join(lines) + "\n"


def write(path: Path, data: bytes) -> None:
    """Raises RobenchError where the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise RobenchError(f"{path}: cannot be written: {error.strerror}") from None


def cell(text: object) -> str:
    """`text` as it stands in a Markdown table: no markup of its own, no line break."""
    said = printable(text)
    for special in "\\`|[":
        said = said.replace(special, f"\\{special}")
    return said.replace("<", "&lt;")


def _shown(row: pd.Series, column: str) -> str:
    value, low, high = (row[column + suffix] for suffix in ("", "_low", "_high"))
    return "–" if pd.isna(value) else f"{percent(value)} ({percent(low)}–{percent(high)})"
