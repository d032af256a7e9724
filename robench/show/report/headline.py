"""What a report found, in a few sentences: who leads and by how much, what attacks find, which
claims hold, what is doubtful, what is proved. Nothing but the results decides what they say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from robench.show import two_sided
from robench.show.claims import Claim
from robench.show.diagnostics.estimate import percent
from robench.show.diagnostics.finding import Verdict
from robench.show.leaderboard import CLEAN, chance_levels, ranked_arrays, ranked_by
from robench.show.report.plots.plots import short_names
from robench.show.report.plots.recall import recalls
from robench.show.report.text import of_items, shorten
from robench.show.report.two_sided import certified
from robench.show.results import Results
from robench.show.statistics import smallest_seen

NAMED = 3
"""Models, and attacks, that a sentence names."""
DATASETS = 4
"""Of which sentences are made."""
LENGTH = 60
SHOWN = 0.0005
"""Below it a share reads 0.0%."""
WHAT = {
    "worst_case": "in the worst case",
    "average_corruptions": "on average over corruptions",
    CLEAN: "on clean images",
}
"""What models are ranked by, as a sentence ends."""


def headline(
    results: Results,
    table: pd.DataFrame,
    verdicts: Mapping[str, Verdict] | None,
    claims: Sequence[Claim],
) -> list[str]:
    """Sentences in plain text: who leads, for each data set; what attacks find of what can be
    broken, before that where none counts in the worst case; claims; doubts and proofs."""
    leaders, found = _leaders(results, table), _found(results)
    first = [*leaders, found] if results.attacks else [found, *leaders]
    said = [*first, _claims(results, claims), _belief(results, table, verdicts)]
    return [of_items(sentence, results.items) for sentence in said if sentence]


def _leaders(results: Results, table: pd.DataFrame) -> list[str]:
    by = ranked_by(results)
    ranked = table[table["rank"].notna() & table[by].notna()]
    if ranked.empty:
        return ["No model has all its outcomes yet: nothing is ranked."]
    if by == "worst_case" and not results.searched:
        return []  # nobody can lead
    chance = chance_levels(results)
    groups = list(ranked.groupby("dataset", sort=False))
    sentences = []
    for dataset, rows in groups[:DATASETS]:
        names = short_names(list(table["model"][table["dataset"] == dataset]), LENGTH)
        text = _group(results, rows, by, names, chance.get(str(dataset)))
        if len(groups) > 1:
            text = f"{shorten(str(dataset), LENGTH)}: {text}"
        elif text.startswith(("the ", "nothing ")):  # and no name, which stays as it is
            text = text[0].upper() + text[1:]
        sentences.append(f"{text}.")
    if (more := len(groups) - DATASETS) > 0:
        sentences.append(f"And {more} more data set{'s' if more > 1 else ''}.")
    return sentences


def _found(results: Results) -> str:
    """What attacks find of what proofs show can be broken: the best of them, and the last."""
    known = recalls(results, results.models) if results.proofs else []
    if len(known) < 2:
        return ""
    names = [shorten(one.card.split("/")[-1], LENGTH) for one in known]
    shares = [percent(one.found / one.breakable) for one in known]
    shown = NAMED if len(known) > NAMED + 1 else len(known)
    parts = [f"{name} {share}" for name, share in zip(names[:shown], shares, strict=False)]
    last = f"; {names[-1]} finds least, {shares[-1]}" if len(known) > shown else ""
    return f"Of the images that can be broken attacks find: {_list(parts)}{last}."


def _group(
    results: Results,
    rows: pd.DataFrame,
    by: str,
    names: Mapping[str, str],
    chance: float | None,
) -> str:
    """One data set: who leads, and how far the others are behind."""
    what = WHAT[by]
    if len(rows) == 1:
        return f"{names[rows['model'].iloc[0]]} keeps {percent(rows[by].iloc[0])} {what}"
    learnt = rows if chance is None else rows[rows[f"{CLEAN}_low"] > chance]
    doubt = ""
    if learnt.empty:
        doubt = f"; none is above chance ({percent(chance or 0)}) on clean images"
    elif len(learnt) < len(rows):
        low = [names[model] for model in rows["model"] if model not in set(learnt["model"])]
        doubt = f"; at chance ({percent(chance or 0)}) on clean images: {_list(low)}"
        if len(learnt) == 1:
            only = learnt.iloc[0]
            return f"{names[only['model']]} keeps {percent(only[by])} {what}{doubt}"
        rows = learnt  # who did not learn neither leads nor ties
    lead = rows["rank"].min()
    first = rows[rows["rank"] == lead].sort_values(by, ascending=False, kind="stable")
    others = rows[rows["rank"] > lead].sort_values(by, ascending=False, kind="stable")
    if others.empty and rows[by].max() < SHOWN:
        return f"nothing is left of any of the {len(rows)} models {what}{doubt}"
    if others.empty:
        return f"the {len(rows)} models cannot be told apart {what} " + (
            f"({_spread(first[by])}; {_power(results, first, rows)}){doubt}"
        )
    following = others.iloc[0]
    gap = 100 * (first[by].iloc[0] - following[by])
    behind = f"{gap:.1f} points above {names[following['model']]}"
    if len(first) == 1:
        best = first.iloc[0]
        return f"{names[best['model']]} leads {what} with {percent(best[by])}, {behind}{doubt}"
    who = _list([names[model] for model in first["model"]])
    return (
        f"{who} lead {what} and cannot be told apart "
        f"({_spread(first[by])}; {_power(results, first, rows)}), the best {behind}{doubt}"
    )


def _spread(values: pd.Series) -> str:
    return f"{percent(values.min())} to {percent(values.max())}"


def _power(results: Results, tied: pd.DataFrame, rows: pd.DataFrame) -> str:
    """What difference between the tied models the test behind the ranks would see."""
    arrays = ranked_arrays(results, list(tied["model"]))
    if tied["images"].nunique() > 1:
        return "they met different images"
    if all(np.array_equal(one.mean(axis=0), arrays[0].mean(axis=0)) for one in arrays):
        return "they answer the same images right"
    together = int((rows["images"] == tied["images"].iloc[0]).sum())
    seen = smallest_seen(arrays, together * (together - 1) // 2)
    if seen >= 1:
        return "on so few images no difference would show"
    points = 100 * seen - 1e-9  # rounded up: never below a difference that was not seen
    shown = f"{math.ceil(points)}" if points > 1 else f"{max(math.ceil(10 * points), 1) / 10:g}"
    return f"only a difference of {shown} point{'' if shown == '1' else 's'} or more would show"


def _claims(results: Results, claims: Sequence[Claim]) -> str:
    """How many published claims hold; a title that asks gets its answer from them."""
    if not claims:
        return ""
    figures = all(claim.get("published") for claim in results.manifest["report"].get("claims", []))
    verdicts = Counter(claim["verdict"] for claim in claims)
    held = _counted(verdicts, len(claims), figures)
    strong = [claim["strong_verdict"] for claim in claims if claim["strong_verdict"]]
    beyond = "" if figures else " under the threat that papers report"
    if strong:
        counted = _counted(Counter(strong), len(strong), figures)
        if len(strong) < len(claims):
            asked = "the one" if len(strong) == 1 else f"of the {len(strong)}"
            beyond += f"; {asked} judged under the strong evaluation {counted}"
        else:
            it = "it " if len(strong) == 1 else ""
            beyond += f"; under the strong evaluation {it}{counted}"
    answer = ""
    if str(results.manifest["report"]["title"]).rstrip().endswith("?"):
        last = [claim["strong_verdict"] or claim["verdict"] for claim in claims]
        good = sum(verdict == "holds" for verdict in last)
        answer = "Yes: " if good == len(last) else "In part: " if good else "Not shown: "
    many = len(claims) > 1
    kind = "published claim" if figures else "claim"
    of = f"of {len(claims)} {kind}s" if many else f"the {kind}"
    text = f"{of} {held}{beyond}."
    return answer + text if answer else text[0].upper() + text[1:]


def _counted(found: Counter[str], of: int, figures: bool) -> str:
    """`2 hold, 1 is weaker and 3 do not hold`; of one claim only the verdict.

    Args:
        figures: whether all are held against published figures.
    """
    if of == 1:
        return _verb(next(iter(found)), 1, figures)
    order = ("holds", "weaker", "does not hold", "did not learn", "cannot be judged")
    known = sorted(found, key=lambda one: order.index(one) if one in order else len(order))
    return _list([f"{found[one]} {_verb(one, found[one], figures)}" for one in known])


def _verb(verdict: str, count: int, figures: bool) -> str:
    """A verdict as the end of a sentence."""
    if verdict == "weaker":
        return f"{'is' if count == 1 else 'are'} weaker{' than published' if figures else ''}"
    if verdict == "did not learn":
        return ("is" if count == 1 else "are") + " void, since a model did not learn"
    many = {"holds": "hold", "does not hold": "do not hold"}
    return many.get(verdict, verdict) if count > 1 else verdict


def _belief(results: Results, table: pd.DataFrame, verdicts: Mapping[str, Verdict] | None) -> str:
    """Which numbers are doubtful, how many models are settled by proofs, how many incomplete."""
    names, said = short_names(list(table["model"]), LENGTH), []
    doubtful = [
        names[model]
        for model in table["model"]
        if verdicts and model in verdicts and verdicts[model]["verdict"] == "doubtful"
    ]
    rest = [name for name in names.values() if name not in set(doubtful)]
    if doubtful and not rest:
        said.append("every number is doubtful")
    elif len(doubtful) > NAMED + 1:
        but = f", all but {_list(rest)}" if len(rest) <= NAMED else ""
        said.append(f"{len(doubtful)} of {len(table)} models are doubtful{but}")
    elif doubtful:
        said.append(f"doubtful: {_list(doubtful)}")
    said += _proofs(results, table, names)
    missing = int((~table["complete"]).sum())
    if missing:
        said.append(f"{missing} of {len(table)} models lack outcomes and are not ranked")
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _proofs(results: Results, table: pd.DataFrame, names: Mapping[str, str]) -> list[str]:
    """The most that is proved in the balls of the worst case; where that is nothing, ball by ball
    what is proved of the model of which most is in the smallest."""
    if not results.proofs or "proved" not in table or not table["proved"].notna().any():
        return []
    best = table.sort_values("proved", ascending=False, kind="stable").iloc[0]
    if best["proved"] >= SHOWN:
        return [f"at best {percent(best['proved'])} is proved, of {names[best['model']]}"]
    where = two_sided.balls(results)
    smallest = two_sided.column(two_sided.PROVED, where[0])
    if smallest in table and table[smallest].notna().any():
        best = table.sort_values(smallest, ascending=False, kind="stable").iloc[0]
    return [f"proved at best: {certified(best, where)} (of {names[best['model']]})"]


def _list(parts: Sequence[str]) -> str:
    """`a, b and c`; of many the first, and how many more."""
    shown = list(parts)
    if len(shown) > NAMED + 1:
        shown = [*shown[:NAMED], f"{len(shown) - NAMED} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
