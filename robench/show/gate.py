"""What a build server asks of a report: least accuracies, as an exit code, JUnit XML and
Markdown."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from robench.errors import RobenchError, nearest, printable
from robench.show.diagnostics.verdicts import diagnose
from robench.show.leaderboard import SUMMARY, leaderboard
from robench.show.report.templating import rendered
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
            accuracy = "has no number"
        else:
            ends = f"{percent(self.low)}–{percent(self.high)}"
            accuracy = f"{percent(self.value)}% ({ends})"
        least = percent(self.least.accuracy)
        return f"{self.model}: {self.least.column} {accuracy}, at least {least}%"


def parse(texts: Iterable[str]) -> list[Least]:
    """`worst_case=0.4`, or for some models `digits/mlp-*:worst_case=0.4`.

    Raises RobenchError for what is neither.
    """
    wanted = []
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
        wanted.append(Least(models if colon else "*", column, accuracy, text))
    return wanted


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

    def case(model: str, name: str, outcome: str, text: str) -> None:
        said = ET.SubElement(suite, "testcase", classname=printable(model), name=printable(name))
        if outcome:
            ET.SubElement(said, outcome, message=printable(text)).text = printable(text)

    for check in checks:
        case(check.model, check.least.said, "" if check.passed else "failure", check.text)
    for gap in results.failures():
        text = f"{gap['status']}: {gap['of']}: {gap['error']}"
        case(gap["model"], f"seed {gap['seed']}", "error", text)
    suite.set("tests", str(len(suite)))
    for outcome in ("failure", "error"):
        suite.set(f"{outcome}s", str(len(suite.findall(f"testcase/{outcome}"))))
    ET.indent(suite)
    made: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return made + b"\n"


def markdown(results: Results, checks: Sequence[Check]) -> str:
    """The leaderboard as a Markdown table, then each least accuracy with what became of it."""
    table = leaderboard(results)
    columns = [name for name in ("worst_case", "clean", *SUMMARY[1:]) if table[name].notna().any()]
    return rendered(
        "gate.md.j2",
        title=results.manifest["report"].get("title") or results.name,
        columns={name: SHORT.get(name, name.replace("_", " ")) for name in columns},
        rows=table.to_dict("records"),
        verdicts=diagnose(results),
        checks=checks,
        gaps=results.failures(),
    )


def write(path: Path, data: bytes) -> None:
    """Raises RobenchError where the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise RobenchError(f"{path}: cannot be written: {error.strerror}") from None
