"""Outcomes -> one table with a row per model: accuracies, their intervals, and ranks.

The rules that make a row honest:

- the headline `worst_case` is what an attacker leaves who may choose, image by image, between the
  clean input and every attack of the report; of a noisy model the choice is made by other draws
  than those that count, so that many attacks do not win by luck alone; attacks with role "floor"
  are shown but do not enter it;
- a noisy model answers two questions: its expected accuracy, by one draw for each question, and
  the vote of several. The first is the headline;
- a number exists only where every seed of its row has every cell it needs: nothing is averaged over
  fewer cells than its neighbours. A row that lacks a cell is shown as incomplete and not ranked;
- models are ranked within one data set (with all its settings) only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from robench.digest import canonical, derived_seed
from robench.show import gaps, two_sided
from robench.show.results import Model, Results, Threat
from robench.show.statistics import (
    Floats,
    Resampling,
    bootstrap,
    holm,
    pairwise,
    ranks,
    resampling,
    wilson,
)

CLEAN = "clean"
SUMMARY = ("worst_case", "average_attacks", "average_corruptions")
VOTES = ("worst_case_vote", "clean_vote")
FIXED = (
    "model", "trainer", "network", "dataset", "seeds", "images", "complete",
    "rank", "rank_best", "rank_worst", *SUMMARY,
    *VOTES,
)  # fmt: skip
SUCCESS = "success:"
SUFFIXES = ("", "_low", "_high", "_sd")


def leaderboard(results: Results) -> pd.DataFrame:
    """One row per model, by data set and then by rank; incomplete rows last.

    Columns: model, trainer, network, dataset, seeds (how many), images, complete, rank (shared by
    models that cannot be told apart), rank_best and rank_worst (the ranks that the tests leave
    open), then accuracies in [0, 1]: worst_case, average_attacks, average_corruptions, where a
    model of the report is noisy worst_case_vote and clean_vote, then clean, every other threat
    under its name, and for every kind of corruption its mean over severities (Acc_c, GLR Eq. 6)
    under "card/kind", and for every targeted attack under "success:NAME" how often the class that
    it aims at was answered, over the images that have another label. Each has _low and _high (95%
    interval) and _sd (between seeds; NaN for one). One that cannot be had from complete cells is
    NaN.

    Where the report has proofs, `proved` is the other end of worst_case and `open` the share
    between the two; of every ball in which something is proved, if there are several, proved@BALL,
    attacked@BALL and open@BALL (two_sided.py). Raises RobenchError where a proof and an attack
    contradict each other.
    """
    two_sided.check(results)
    gaps.check(results)
    datasets = dataset_labels(results)
    rows: list[dict[str, Any]] = []
    worst: list[Floats | None] = []
    for model in results.models:
        scores, survived = _scores(results, model)
        complete = results.complete(model)
        rows.append(
            {
                "model": model["name"],
                "trainer": model["card"]["trainer"]["name"],
                "network": model["card"]["network"]["name"],
                "dataset": datasets[model["name"]],
                "seeds": len(model["seeds"]),
                "images": 0 if survived is None else survived.shape[1],
                "complete": complete,
                **scores,
            }
        )
        worst.append(survived if complete else None)
    names = _columns(results)
    table = pd.DataFrame(rows).reindex(columns=names)  # what no row has is NaN
    for column in ("rank", "rank_best", "rank_worst"):
        table[column] = pd.array([pd.NA] * len(table), dtype="Int64")
    for _, group in table.groupby(["dataset", "images"], sort=False):
        _rank(table, [int(row) for row in group.index if worst[int(row)] is not None], worst)
    first_seen = {name: place for place, name in enumerate(dict.fromkeys(table["dataset"]))}
    table["_group"] = table["dataset"].map(first_seen)
    table = table.sort_values(
        ["_group", "complete", "rank", ranked_by(results), "model"],
        ascending=[True, False, True, False, True],
        na_position="last",
        kind="stable",
    ).reset_index(drop=True)
    return table[names]


def ranked_by(results: Results) -> str:
    """The column by which models are ranked: the worst case; in a report without attacks what it
    measures, the average over corruptions, else clean accuracy."""
    return "worst_case" if results.attacked else SUMMARY[2] if results.kinds else CLEAN


def ranked_arrays(results: Results, names: Sequence[str]) -> list[Floats]:
    """(seeds, images) of each named model that has it: what it is ranked by."""
    arrays = [_ranked(results, results.by_name[name]) for name in names]
    return [one for one in arrays if one is not None]


def chance_levels(results: Results) -> dict[str, float]:
    """Of each data set, by its label: the accuracy of always answering the most frequent class of
    the test images, which a model must beat to have learned anything."""
    levels: dict[str, float] = {}
    labels = dataset_labels(results)
    for model in results.models:
        rows = [results.rows[cell["digest"]] for cell in results.cells(model, CLEAN)]
        known = next((table for table in rows if len(table)), None)
        if known is not None and labels[model["name"]] not in levels:
            counts = np.unique(known.column("label").to_numpy(), return_counts=True)[1]
            levels[labels[model["name"]]] = float(counts.max() / counts.sum())
    return levels


def _ranked(results: Results, model: Model) -> Floats | None:
    """(seeds, images): what a model is ranked by; None where it has not all of it."""
    if results.attacked:
        return results.worst_case(model)
    if not results.kinds:
        return results.correct(model, CLEAN)
    kinds = results.kinds.values()
    return mean_of([mean_of([results.correct(model, t["name"]) for t in kind]) for kind in kinds])


def column_name(threat: str) -> str:
    """The column of a threat or of a kind: its name, unless a column of ours has that already."""
    ours = threat in FIXED or two_sided.taken(threat) or threat.startswith(SUCCESS)
    return f"threat:{threat}" if ours else threat


def success_column(threat: str) -> str:
    """The column of how often a targeted attack got the answer that it aims at."""
    return f"{SUCCESS}{threat}"


def dataset_labels(results: Results) -> dict[str, str]:
    """Each model's data set by name; with the settings that differ where one name has several."""
    fields = {
        m["name"]: (m["card"]["dataset"]["name"], m["fields"]["dataset"]) for m in results.models
    }
    variants: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, settings in fields.values():
        variants.setdefault(name, {})[canonical(settings)] = settings
    labels: dict[str, str] = {}
    for model, (name, settings) in fields.items():
        others = list(variants[name].values())
        keys = sorted({key for other in others for key in other})
        differing = [
            key for key in keys if len({canonical(other.get(key)) for other in others}) > 1
        ]
        if len(differing) > 1:  # a setting says more than the hash that follows from it
            differing = [key for key in differing if key != "fingerprint"]
        shown = ", ".join(f"{key} = {settings.get(key)}" for key in differing)
        labels[model] = f"{name} ({shown})" if shown else name
    return labels


def _columns(results: Results) -> list[str]:
    threats = [CLEAN, *(column_name(t["name"]) for t in results.threats if t["name"] != CLEAN)]
    kinds = [column_name(kind) for kind in results.kinds]
    votes = VOTES if results.noisy else ()
    ends = two_sided.columns(results)
    reached = [success_column(threat["name"]) for threat in results.targeted]
    measured = [SUMMARY[0], *ends, *SUMMARY[1:], *votes, *threats, *reached, *kinds]
    fixed = [name for name in FIXED if name not in (*SUMMARY, *VOTES)]
    return fixed + [
        f"{name}{suffix}"
        for name in dict.fromkeys(measured)
        for suffix in (SUFFIXES if not two_sided.between(name) else ("",))
    ]


def _scores(results: Results, model: Model) -> tuple[dict[str, float], Floats | None]:
    """Every accuracy of a row with interval and sd, and what it is ranked by (seeds, images) if
    known: see `ranked_by`."""
    correct = {t["name"]: results.correct(model, t["name"]) for t in results.threats}
    survived = results.worst_case(model)
    headlines = {"worst_case": survived} if results.attacked else {}
    if results.noisy:
        headlines |= {VOTES[1]: results.vote(model, CLEAN)}
        headlines |= {VOTES[0]: results.worst_vote(model)} if results.attacked else {}
    # Measured on images once each: Wilson holds.
    single = _known({column_name(name): one for name, one in correct.items()} | headlines)
    single |= two_sided.accuracies(results, model)

    def mean(threats: Sequence[Threat]) -> Floats | None:
        return mean_of([correct[threat["name"]] for threat in results.met(model, threats)])

    kinds = {column_name(kind): mean(threats) for kind, threats in results.kinds.items()}
    averages = {"average_attacks": mean(results.averaged), **kinds}
    # Averages reuse images: bootstrap by image.
    reused = _known(averages | {"average_corruptions": mean_of(list(kinds.values()))})
    scores = summaries(single, reused)
    for threat in results.targeted:  # over images of their own: those that have another label
        success = results.success(model, threat["name"])
        if success is not None:
            scores |= summaries({success_column(threat["name"]): success}, {})
    ranked = survived if results.attacked else reused.get(SUMMARY[2], single.get(CLEAN))
    return scores | two_sided.left_open(results, scores), ranked


def mean_of(parts: Sequence[Floats | None]) -> Floats | None:
    """Of arrays of one shape; None when there are none or one is missing."""
    known = [part for part in parts if part is not None]
    return np.asarray(np.mean(known, axis=0)) if known and len(known) == len(parts) else None


def _known(arrays: Mapping[str, Floats | None]) -> dict[str, Floats]:
    return {name: array for name, array in arrays.items() if array is not None}


def summaries(single: dict[str, Floats], reused: dict[str, Floats]) -> dict[str, float]:
    """Every accuracy with interval and sd. single: (seeds, images) that were measured once;
    reused: averages over threats that share their images."""
    every = {**single, **reused}
    if not every:
        return {}
    seeds, images = next(iter(every.values())).shape
    stacked = np.stack(list(every.values()))
    value = stacked.mean(axis=(1, 2))
    low, high = wilson(value, images)
    drawn = slice(0 if seeds > 1 else len(single), None)
    if len(value[drawn]):
        low[drawn], high[drawn] = bootstrap(stacked[drawn], _resampling(seeds, images))
    sd = stacked.mean(axis=2).std(axis=1, ddof=1) if seeds > 1 else np.full(len(value), np.nan)
    columns = zip(every, value, low, high, sd, strict=True)
    return {
        f"{name}{suffix}": float(number)
        for name, *numbers in columns
        for suffix, number in zip(SUFFIXES, numbers, strict=True)
    }


@lru_cache(maxsize=2)
def _resampling(seeds: int, images: int) -> Resampling:
    """The same draws for every row with as many seeds and images."""
    rng = np.random.default_rng(derived_seed("leaderboard intervals", seeds, images))
    return resampling(seeds, images, rng)


def _rank(table: pd.DataFrame, rows: list[int], worst: list[Floats | None]) -> None:
    """Writes the ranks of `rows`, which share a data set."""
    arrays = [array for row in rows if (array := worst[row]) is not None]
    if not arrays:
        return
    accuracy = np.array([array.mean() for array in arrays])
    ranked = ranks(accuracy, holm(pairwise(arrays)))
    table.loc[rows, "rank"] = ranked.rank
    table.loc[rows, "rank_best"] = ranked.best
    table.loc[rows, "rank_worst"] = ranked.worst
