"""Both ends on the page: a row's headline, each ball in the view of a model, and words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd

from robench.show.balls import Ball
from robench.show.report.text import Entry, budget, entry, shorten
from robench.show.results import Model, Results
from robench.show.two_sided import ATTACKED, OPEN, PROVED, balls, column, efforts, ends

DRAWN = 2000
"""Images of a model that are drawn one by one, all seeds together."""
REASONS, REASON = 4, 120
"""Reasons for open images that are named, and their characters."""
NAMED = 4
"""Noisy models whose certificates the page names."""


@dataclass(frozen=True)
class Pair:
    """Both ends, as the table prints them."""

    proved: Entry
    attacked: Entry
    settled: bool
    """Whether no image is open."""
    word: str
    """What the lower end is called: where a noisy model's answers are bounded, certified."""


def pair(row: Mapping[str, Any], model: Model) -> Pair | None:
    """Both ends of the worst case from a row of the leaderboard; None where it has not both."""
    low, high = (entry(row, column(part, None)) for part in (PROVED, ATTACKED))
    if low is None or high is None:
        return None
    noisy = bool(model.get("stochastic"))
    settled = not noisy and bool(row[column(OPEN, None)] < 1e-9)
    return Pair(low, high, settled, "certified" if noisy else "proved")


def words(ball: Ball) -> str:
    """`L∞ ≤ 0.1`."""
    of = "" if ball.part == "features" else f" of the {ball.part}"
    return f"{budget(ball._asdict())}{of}"


def record(results: Results, model: Model, row: pd.Series) -> dict[str, Any]:
    """What the view of a model shows beside the columns of its row: of each ball in which something
    is proved what it is called, how many attacks looked into it, and image by image what became of
    it; of a noisy model what is certified, in words. Empty where no proof applies."""
    made: list[dict[str, Any]] = []
    for ball in balls(results):
        both = ends(results, model, ball)
        if both is None:
            continue
        one = {"ball": words(ball), "key": str(ball), "attacks": len(both.attacks)}
        if both.proved.size <= DRAWN and not model.get("stochastic"):
            one["states"] = ["".join(seed) for seed in both.states.tolist()]
        made.append(one | _effort(results, model, ball))
    if not made:
        return {}
    said = certified(row, balls(results)) if model.get("stochastic") else ""
    return {"ends": made, **({"certified": said} if said else {})}


def _effort(results: Results, model: Model, ball: Ball) -> dict[str, Any]:
    """Images that the proofs of a ball were asked about, seconds of one, and why some are open."""
    noted = efforts(results, model, ball)
    asked = sum(one["images"] for one in noted)
    if not asked:
        return {}
    why = Counter(shorten(text, REASON) for one in noted for text in one["open"].values())
    times = [one["seconds"] for one in noted if one["images"]]
    return {
        "asked": asked,
        "median": float(f"{median(time['median'] for time in times):.3g}"),
        "longest": float(f"{max(time['max'] for time in times):.3g}"),
        **({"why": dict(why.most_common(REASONS))} if why else {}),
    }


def certificates(results: Results, table: pd.DataFrame) -> list[str]:
    """How much is certified of each noisy model, in words: it is little."""
    noisy = {model["name"] for model in results.models if model.get("stochastic")}
    rows = [row for _, row in table.iterrows() if row["model"] in noisy]
    said = [(row["model"], certified(row, balls(results))) for row in rows]
    return [f"{name}: {what}" for name, what in said if what][:NAMED]


def certified(row: pd.Series, where: Sequence[Ball]) -> str:
    """`82.0% at L∞ ≤ 0.005, nothing at 0.01 and 0.02`, from a row of the leaderboard; empty where
    nothing was tried."""
    shares: list[tuple[Ball, float]] = []
    for ball in where:
        names = [name for name in (column(PROVED, ball), PROVED) if name in row]
        if names and not pd.isna(row[names[0]]):
            shares.append((ball, float(row[names[0]])))
    some = [f"{100 * share:.1f}% at {words(ball)}" for ball, share in shares if share >= 5e-4]
    none = [ball for ball, share in shares if share < 5e-4]
    if len({(ball.norm, ball.part) for ball in none}) == 1 and len(none) > 1:
        some.append(f"nothing from {words(none[0])} on")
    elif none:
        some.append("nothing at " + " or ".join(words(ball) for ball in none))
    return ", ".join(some)
