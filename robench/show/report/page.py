"""Results -> the page, as text: what the template is given."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from robench.show.claims import Claim
from robench.show.corruption_error import corruption_errors
from robench.show.diagnostics.finding import Verdict
from robench.show.diagnostics.verdicts import Held, tally
from robench.show.leaderboard import CLEAN, chance_levels, column_name, dataset_labels, ranked_by
from robench.show.report.answers import answers
from robench.show.report.around import Around
from robench.show.report.citation import bibtex, measured_on
from robench.show.report.columns import Column, columns, grouped, roles
from robench.show.report.costs import costs
from robench.show.report.final_noise import final_noise
from robench.show.report.payload import embedded, payload, with_pictures
from robench.show.report.pictures import Strip, contact_sheet
from robench.show.report.plots.drawing import Plot
from robench.show.report.plots.plots import plots
from robench.show.report.spiking import ADDITION_PJ, MULTIPLICATION_PJ, spikes
from robench.show.report.templating import page_of
from robench.show.report.text import (
    NORMS,
    Entry,
    counted,
    entry,
    image_count,
    of_items,
    own_name,
    paper_link,
    shorten,
)
from robench.show.report.two_sided import certificates, pair
from robench.show.results import Model, Results
from robench.show.statistics import RESAMPLES

SCRIPTS = ("scroll.js", "cite.js", "two_sided.js", "table.js", "compare.js", "model.js")
STYLES = ("page.css", "compare.css", "two_sided.css")
PAGE_BYTES = 4_900_000
"""What a page may take: example images get what all else leaves of it."""


def _notes(results: Results) -> list[str]:
    """By which rule answers count, and what is to be said of the models' data."""
    of_models = (note for model in results.models for note in model.get("notes", ()))
    return list(dict.fromkeys([*counted(results.manifest["report"]), *of_models]))


def render(
    results: Results,
    table: pd.DataFrame,
    verdicts: Mapping[str, Verdict] | None,
    claims: Sequence[Claim],
    headline: Sequence[str],
    made_from: str,
    held: Mapping[str, Held] | None = None,
    around: Around | None = None,
) -> str:
    """The page as text.

    Args:
        made_from: digest of all that it shows, for whoever asks if it is old.
        held: verdicts without proofs, held against these (diagnostics/verdicts.py).
        around: the pages before and after it in the index of its site, where it is part of one.
    """
    chosen = columns(results, table)
    shown = [column for column in chosen if column.shown]
    chance, figures = chance_levels(results), _published(results, table)
    page = page_of(
        "page.html.j2",
        SCRIPTS,
        STYLES,
        report=results.manifest["report"],
        manifest=results.manifest,
        norms=NORMS,
        roles=roles(results),
        resamples=RESAMPLES,
        images=image_count(table["images"], results.manifest["report"]["images"]),
        machine=_machine,
        samples=_samples(results),
        evaluation=_evaluation(results),
        tones={"holds": "good", "does not hold": "bad"},
        results=results,
        columns=chosen,
        column_groups=grouped(chosen),
        shown=shown,
        groups=_groups(results, table, shown, chance),
        trainers=sorted(set(table["trainer"])),
        networks=sorted(set(table["network"])),
        datasets=list(dict.fromkeys(table["dataset"])),
        plots=_by_dataset(plots(results, table, verdicts)),
        sheets=_sheets(results, table),
        corruption_errors=corruption_errors(results),
        published=[figure for figure in figures if figure.ours],
        unmeasured=sum(figure.ours is None for figure in figures),
        costs=costs(results),
        final_noise=final_noise(results),
        spikes=spikes(results),
        picojoules=(ADDITION_PJ, MULTIPLICATION_PJ),
        certificates=certificates(results, table),
        held=tally(held or {}),
        failures=results.failures(),
        notes=_notes(results),
        verdicts=verdicts,
        claims=claims,
        headline=headline,
        items=results.items,
        an_item="an image" if results.items == "images" else f"a {results.items[:-1]}",
        measured=measured_on(results.manifest),
        bibtex=bibtex(results.manifest),
        around=around,
        paper_link=paper_link(str(results.manifest["report"].get("paper") or "")),
        ranked_by=ranked_by(results),
        chance={name: f"{100 * value:.1f}" for name, value in chance.items()},
        made_from=made_from,
    )
    data = payload(results, table, verdicts)
    data["columns"] = _script_columns(chosen, results)
    data["answers"] = answers(results, table)
    taken = len(page.encode()) + len(embedded(data))
    data["models"] = with_pictures(data["models"], results, table, PAGE_BYTES - taken)
    before, tag, after = page.partition('id="data">')  # no name says this: quotes are escaped
    return before + tag + embedded(data) + after


def _by_dataset(made: Sequence[Plot]) -> dict[str, list[Plot]]:
    """Plots of two data sets never share a row of the page."""
    groups: dict[str, list[Plot]] = {}
    for plot in made:
        groups.setdefault(plot.dataset, []).append(plot)
    return groups


def _samples(results: Results) -> list[str]:
    """What is to be said of the test images: how many of how many they are and how they were drawn,
    and classes that are not met."""
    labels, said = dataset_labels(results), dict[str, None]()
    for model in results.models:
        name = shorten(own_name(labels[model["name"]]), 60)
        text = _sample(model.get("sample"))
        if text:
            said[of_items(f"{name}: {text}.", results.items)] = None
        absent = [str(one) for one in model.get("absent") or []]
        if absent:
            shown = ", ".join(absent[:10]) + (", ..." if len(absent) > 10 else "")
            said[
                f"{name}: {len(absent)} classes are missing from the test {results.items} "
                f"({shorten(shown, 120)}): the accuracies say nothing about them."
            ] = None
    return list(said)


def _sample(sample: Any) -> str:
    """`200 of 10,000 test images, drawn by class, seed 0`; nothing of manifests that do not say."""
    if not isinstance(sample, Mapping):
        return "a sample of the test images, drawn by class" if sample == "stratified" else ""
    if not sample.get("order"):
        return f"all {sample['of']:,} test images"
    how = f"drawn {shorten(sample['order'], 40)}, seed {sample.get('seed')}"
    return f"{sample['images']:,} of {sample['of']:,} test images, {how}, the same in every run"


def _groups(
    results: Results, table: pd.DataFrame, chosen: Sequence[Column], chance: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The rows that may be compared, data set by data set."""
    groups = []
    for dataset, rows in table.groupby("dataset", sort=False):
        level, made = chance.get(str(dataset), 0.0), []
        for place, row in zip(rows.index, rows.to_dict("records"), strict=True):
            model = results.by_name[row["model"]]
            made.append({"place": place, **_row(row, chosen, model, level)})
        groups.append({"dataset": dataset, "images": rows["images"].max(), "rows": made})
    return groups


def _row(
    row: Mapping[Any, Any], chosen: Sequence[Column], model: Model, chance: float
) -> dict[str, Any]:
    """A row of the table as it is printed. ends: both of the worst case; at_chance: whether the
    interval of its clean accuracy covers that of always answering one class."""
    ranked = not pd.isna(row["rank"])
    best, worst = row["rank_best"], row["rank_worst"]
    return {
        **{key: row[key] for key in ("model", "seeds", "complete")},
        "trainer": own_name(row["trainer"]),
        "network": own_name(row["network"]),
        "rank": row["rank"] if ranked else "–",
        "span": f"{best}–{worst}" if ranked and best != worst else "",
        "entries": [entry(row, column.key) for column in chosen],
        "ends": pair(row, model),
        "at_chance": row[f"{CLEAN}_low"] <= chance,
    }


@dataclass(frozen=True)
class Published:
    """A published figure beside ours; `ours` is None where the report does not measure it."""

    model: str
    threat: str
    published: float
    ours: Entry | None
    difference: float | None


def _published(results: Results, table: pd.DataFrame) -> list[Published]:
    rows = {row["model"]: row for _, row in table.iterrows()}
    figures = []
    for model in results.models:
        for threat, value in model["card"].get("published", {}).items():
            key = _measured_as(threat, results, table)
            ours = entry(rows[model["name"]], key) if key else None
            gap = float(rows[model["name"]][key]) - value if key and ours else None
            figures.append(Published(model["name"], threat, value, ours, gap))
    return figures


def _measured_as(threat: str, results: Results, table: pd.DataFrame) -> str | None:
    """The column that a published name means: a threat, a kind, or a kind without its card."""
    if threat in table.columns:
        return threat
    return next((kind for kind in results.kinds if kind.split("/", 1)[1] == threat), None)


def _sheets(results: Results, table: pd.DataFrame) -> dict[str, list[Strip]]:
    """Of each data set one test image under every corruption."""
    first = table.groupby("dataset", sort=False)["model"].first()
    sheets = {name: contact_sheet(results, results.by_name[model]) for name, model in first.items()}
    return {str(name): strips for name, strips in sheets.items() if strips}


HARDWARE = ("device", "processor", "capability", "cores", "threads", "system")


def _machine(environment: Mapping[str, Any]) -> tuple[str, str]:
    """Hardware and versions of an environment, as text."""
    versions = [key for key in sorted(environment) if key not in (*HARDWARE, "started")]
    return (
        ", ".join(f"{key} {environment[key]}" for key in HARDWARE if environment.get(key)),
        ", ".join(f"{key} {environment[key]}" for key in versions),
    )


def _evaluation(results: Results) -> dict[tuple[str, int], float]:
    """Seconds that each model seed spent in its cells."""
    total = defaultdict[tuple[str, int], float](float)
    for cell in results.manifest["cells"]:
        total[cell["model"], cell["seed"]] += cell.get("seconds") or 0.0
    return total


def _script_columns(chosen: Sequence[Column], results: Results) -> list[dict[str, Any]]:
    """What the script needs of columns; of, at: where a model's record has its numbers."""
    places: dict[str, tuple[str, int | str]] = {
        **{column_name(kind): ("kinds", i) for i, kind in enumerate(results.kinds)},
        **{column_name(t["name"]): ("threats", i) for i, t in enumerate(results.threats)},
    }
    made = []
    for column in chosen:
        of, at = places.get(column.key, ("summary", column.key))
        one = {"key": column.key, "label": column.label, "shown": column.shown, "of": of, "at": at}
        made.append(one | ({"summary": True} if column.summary else {}))
    return made
