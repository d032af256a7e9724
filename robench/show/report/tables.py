"""The leaderboard for other programs and papers: CSV, JSON, LaTeX."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from robench.show.claims import Claim
from robench.show.diagnostics.finding import Verdict
from robench.show.diagnostics.verdicts import Held, tally
from robench.show.leaderboard import CLEAN, SUMMARY, chance_levels, column_name, ranked_by
from robench.show.report.citation import measured_on, tex
from robench.show.report.plots.plots import common_folder
from robench.show.report.text import entry
from robench.show.results import Results

DIGITS = 6
TEXTS = ("model", "trainer", "network", "dataset")
BY = {CLEAN: "by clean accuracy", SUMMARY[2]: "by the average over corruptions"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What the text of a cell begins with that spreadsheets compute."""


def as_csv(
    table: pd.DataFrame,
    verdicts: Mapping[str, Verdict] | None = None,
    held: Mapping[str, Held] | None = None,
) -> str:
    """One line per model; accuracies in [0, 1]; empty where a number cannot be had; last the
    verdict on each and the checks that raised an alarm, where they are known, and what the verdict
    is without proofs and how the attacks' number lies to the truth, where proofs know it.

    A name that a spreadsheet would take for a formula gets an apostrophe before it, which shows it
    as text; JSON has every name as it is.
    """
    if verdicts:
        found = [verdicts.get(name) for name in table["model"]]
        raised = [
            "; ".join(alarm["check"] for alarm in one["alarms"]) if one else "" for one in found
        ]
        said = {"verdict": [one["verdict"] if one else "" for one in found], "alarms": raised}
        if held:
            of = [held.get(name) for name in table["model"]]
            said["verdict_without_proofs"] = [one.verdict if one else "" for one in of]
            said["against_truth"] = [one.truth if one else "" for one in of]
        table = pd.concat([table, pd.DataFrame(said, index=table.index)], axis=1)
    texts = table[[name for name in TEXTS if name in table]].map(_inert)
    return _csv(table.assign(**texts).rename(columns=_inert))


def as_long_csv(
    results: Results, table: pd.DataFrame, verdicts: Mapping[str, Verdict] | None = None
) -> str:
    """One line for each model under each threat: what plotting programs and statistics want."""
    lines = []
    for _, row in table.iterrows():
        verdict = (verdicts or {}).get(row["model"])
        for threat in results.threats:
            name = column_name(threat["name"])
            if not pd.isna(row[name]):
                lines.append(
                    {key: _inert(row[key]) for key in TEXTS}
                    | {"threat": _inert(threat["name"])}
                    | {key: threat.get(key) for key in ("kind", "role", "norm", "eps", "severity")}
                    | {f"accuracy{end}": row[name + end] for end in ("", "_low", "_high", "_sd")}
                    | {"verdict": verdict["verdict"] if verdict else None}
                )
    return _csv(pd.DataFrame(lines))


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n")


def as_json(
    results: Results,
    table: pd.DataFrame,
    verdicts: Mapping[str, Verdict] | None = None,
    headline: Sequence[str] = (),
    claims: Sequence[Claim] = (),
    held: Mapping[str, Held] | None = None,
) -> str:
    """The same rows as objects, each with the verdict on it and the checks that raised an alarm;
    with the report's name, the digest of its threat set, its headline in sentences, the verdict on
    each published claim, the day on which it was finished where that is known, of each data set the
    accuracy of always answering its most frequent class, and, where proofs know the truth, how
    often each verdict was right without them (`verdicts_against_truth`)."""
    rows = [
        {key: _plain(value) for key, value in row.items() if not _absent_sd(key, value)}
        for row in table.to_dict(orient="records")
    ]
    for row in rows:
        if verdicts and (found := verdicts.get(row["model"])):
            row["verdict"] = found["verdict"]
            row["alarms"] = [alarm["check"] for alarm in found["alarms"]]
        if held and (told := held.get(row["model"])):
            row["verdict_without_proofs"], row["against_truth"] = told
    document: dict[str, Any] = {
        "schema": 1,
        "report": results.name,
        "title": results.manifest["report"]["title"],
        "threat_set": results.manifest["threat_set"],
        "headline": list(headline),
        "finished": measured_on(results.manifest) or None,
        "claims": [
            {key: value for key, value in claim.items() if key != "evidence"} for claim in claims
        ],
        "chance": {name: _plain(value) for name, value in chance_levels(results).items()},
        **({"verdicts_against_truth": tally(held)} if held else {}),
        "rows": rows,
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def as_latex(
    results: Results, table: pd.DataFrame, verdicts: Mapping[str, Verdict] | None = None
) -> str:
    """A booktabs table in per cent, best first, for one column of a paper: clean, worst case with
    its interval, what is proved, and the average over attacks (over corruptions, where there are no
    attacks); columns in which nothing was measured are left out, but for clean and worst case. All
    else is in the CSV files.

    A dagger marks the models that diagnostics call doubtful.
    """
    doubtful = {name for name, found in (verdicts or {}).items() if found["verdict"] == "doubtful"}
    worst, attacks, corruptions = SUMMARY
    columns = [
        (head, name)
        for head, name in (
            ("clean", CLEAN),
            ("worst case", worst),
            ("proved", "proved"),
            ("average", attacks if results.attacked else corruptions),
        )
        if name in (CLEAN, worst) or (name in table and table[name].notna().any())
    ]
    folder = common_folder(list(table["model"]))
    lines = [
        f"% {_one_line(results.manifest['report']['title'])}",
        f"% threat set {_one_line(results.manifest['threat_set'])}; accuracy in per cent, "
        "small: 95% interval",
        *([f"% models of {_one_line(folder)}"] if folder else []),
        *([] if results.attacked else [f"% no attacks: ranked {BY[ranked_by(results)]}"]),
        *(["% dagger: gradient masking suspected, an upper bound"] if doubtful else []),
        r"\begin{tabular}{@{}l" + "r" * len(columns) + "@{}}",
        r"\toprule",
        " & ".join(["model", *(head for head, _ in columns)]) + r" \\",
    ]
    for dataset, rows in table.groupby("dataset", sort=False):
        lines.append(r"\midrule")
        if table["dataset"].nunique() > 1:
            span = len(columns) + 1
            lines.append(rf"\multicolumn{{{span}}}{{@{{}}l}}{{\emph{{{tex(str(dataset))}}}}} \\")
        for _, row in rows.iterrows():
            cells = [_percent(row, name) for _, name in columns]
            name = tex(row["model"].removeprefix(folder)) + (
                r"\textsuperscript{\dag}" if row["model"] in doubtful else ""
            )
            lines.append(" & ".join([name, *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join(lines)


def _percent(row: pd.Series, name: str) -> str:
    shown = entry(row, name)
    if shown is None:
        return "--"
    interval = rf" {{\tiny {shown.low}--{shown.high}}}" if name == SUMMARY[0] else ""
    return shown.value + interval


def _inert(text: str) -> str:
    return f"'{text}" if str(text).startswith(FORMULA) else text


def _one_line(text: str) -> str:
    return " ".join(str(text).split())


def _plain(value: Any) -> Any:
    if value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    return value.item() if hasattr(value, "item") else value


def _absent_sd(key: object, value: Any) -> bool:
    return str(key).endswith("_sd") and isinstance(value, float) and math.isnan(value)
