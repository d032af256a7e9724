"""Which columns the page's table has, how they are grouped, and which are shown at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from robench.show import two_sided
from robench.show.leaderboard import CLEAN, VOTES, column_name, ranked_by, success_column
from robench.show.report.text import budget, towards
from robench.show.report.two_sided import words
from robench.show.results import Results, Threat, targeted

SHOWN_AT_FIRST = 9  # threat columns beyond the summary that a screen takes
ROLES = {
    "diagnostic": ", diagnostic: in the worst case, not in the average",
    "floor": ", noise floor: not in the worst case",
    "proof": ", proof: in the worst case counts what it broke",
    "curve": ", at several eps: not in the worst case",
}
"""What a page adds to the name of a threat that does not count as the attacks do."""
SUMMARY, ATTACKS = "Summary", "Attacks"
ENDS = "Proved and attacked, by ball"
SUCCESS = "Success of targeted attacks"
FLOORS, CURVES = "Noise floors", "At several eps"
NOT_COUNTED = " (not in the worst case)"
KINDS, SEVERITIES = "Corruptions, mean over severities", "Corruptions at each severity"


@dataclass(frozen=True)
class Column:
    """A column of accuracies. key: in the leaderboard's table; note: what a pointer is told."""

    key: str
    label: str
    group: str
    note: str
    shown: bool
    small: str = ""

    @property
    def summary(self) -> bool:
        return self.group == SUMMARY


def columns(results: Results, table: pd.DataFrame) -> list[Column]:
    """All columns of accuracies, the headline first; those without any number are left out, and
    the worst case where there are no attacks."""
    attacks, kinds = results.attacks, results.kinds
    cards = {threats[0]["card"] for threats in kinds.values()}

    def card(threat: Threat) -> str:
        return str(threat["card"]) if len(cards) > 1 else ""

    with_attacks = len(attacks) <= SHOWN_AT_FIRST
    with_kinds = len(attacks) + len(kinds) <= SHOWN_AT_FIRST
    headline = "share of images that survive the clean input and every attack, image by image"
    if results.noisy:
        headline += "; of a noisy model the attack is chosen by other draws than those that count"
    majority = f"the majority of {results.voters} draws of a noisy model"
    aside = "" if results.proofs else NOT_COUNTED
    both = "proved – attacked" if results.proofs else ""
    every = [
        Column("worst_case", "Worst case", SUMMARY, headline, True, both),
        *_ends(results, table),
        Column(CLEAN, "Clean", SUMMARY, "accuracy on unperturbed test images", True),
        *(
            (
                Column(
                    VOTES[0], "Worst case, vote", SUMMARY,
                    f"the same for {majority}, under attacks chosen against it", True,
                ),
                Column(VOTES[1], "Clean, vote", SUMMARY, f"clean accuracy of {majority}", False),
            )
            if results.noisy
            else ()
        ),
        Column(
            "average_attacks", "Average over attacks", SUMMARY,
            "what papers print; it hides that each image may fall to another attack", True,
        ),
        Column(
            "average_corruptions", "Average over corruptions", SUMMARY,
            "mean over kinds of the mean over severities", True,
        ),
        *(_attack(threat, ATTACKS, with_attacks) for threat in attacks),
        *(
            Column(
                success_column(threat["name"]), threat["name"], SUCCESS,
                f"how often {threat['name']} gets the answer that it aims at, {towards(threat)}; "
                "less is better", with_attacks, f"towards {towards(threat)}",
            )
            for threat in results.targeted
        ),
        *(_attack(threat, FLOORS + aside, False) for threat in results.floors),
        *(_attack(threat, CURVES + aside, False) for threat in results.curves),
        *(
            Column(
                column_name(kind), threats[0]["corruption"], KINDS,
                f"{kind}: mean over {len(threats)} severities", with_kinds,
                card(threats[0]),
            )
            for kind, threats in kinds.items()
        ),
        *(
            Column(
                column_name(threat["name"]), f"{threat['corruption']} {threat['severity']}",
                SEVERITIES, threat["name"], False, card(threat),
            )
            for threats in kinds.values()
            for threat in threats
        ),
    ]  # fmt: skip
    if not results.attacked:  # they would say the clean accuracy a second time
        every = [column for column in every if column.key not in ("worst_case", VOTES[0])]
    first = ranked_by(results)
    every.sort(key=lambda column: column.key != first)
    always = ("worst_case", CLEAN)
    return [column for column in every if column.key in always or table[column.key].notna().any()]


def roles(results: Results) -> dict[str, str]:
    """ROLES, and where there are proofs what becomes of curves."""
    if not results.proofs:
        return ROLES
    counts = "in the worst case where it lies in a ball of it"
    return ROLES | {"floor": f", noise floor: {counts}", "curve": f", at several eps: {counts}"}


def grouped(chosen: Sequence[Column]) -> dict[str, list[Column]]:
    """The columns by group, in the order in which the page shows them."""
    groups: dict[str, list[Column]] = {}
    for column in chosen:
        groups.setdefault(column.group, []).append(column)
    return groups


def _ends(results: Results, table: pd.DataFrame) -> list[Column]:
    """The proved end, and both of every ball: shown at first where the headline has one only."""
    if not results.proofs:
        return []
    note = "share of images for which a proof shows that nothing in the ball is answered wrong"
    left = "share of images that the clean input and every attack in this ball left"
    hidden = bool(table["proved"].notna().any())
    return [
        Column("proved", "Proved", SUMMARY, note, False),
        *(
            Column(
                two_sided.column(part, ball), part.capitalize(), ENDS, said, not hidden, words(ball)
            )
            for ball in two_sided.several(results)
            for part, said in ((two_sided.PROVED, note), (two_sided.ATTACKED, left))
        ),
    ]


def _attack(threat: Threat, group: str, shown: bool) -> Column:
    surrogate = f" from {threat['surrogate']}" if threat.get("surrogate") else ""
    strength = budget(threat)
    aim = f", towards {towards(threat)}: not in the average" if targeted(threat) else ""
    note = f"{threat['access']}{surrogate}, {strength}{aim}. {threat.get('description') or ''}"
    name = column_name(threat["name"])
    return Column(name, threat["name"], group, note.strip(), shown, strength)
