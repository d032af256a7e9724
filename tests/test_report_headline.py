"""The headline of a page: generated from the results, and true of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from synthetic import Synthetic, SyntheticModel, attack_threat, clean_threat, corruption_threat

from robench.claims import Claim
from robench.leaderboard import chance_levels, leaderboard, ranked_by
from robench.report.headline import headline
from robench.results import Results
from robench.statistics import paired_t, smallest_seen

THREATS = [clean_threat(), attack_threat("fgsm", 0.1, 0.3)]
STRONG = SyntheticModel("models/strong", clean=0.99, slope=0.2)
WEAK = SyntheticModel("models/weak", clean=0.95, slope=2.0)


def said(results: Results, claims: list[Claim] | None = None, verdicts: Any = None) -> list[str]:
    return headline(results, leaderboard(results), verdicts, claims or [])


def claim(verdict: str, strong: str = "") -> Claim:
    return Claim(text="t", verdict=verdict, strong_verdict=strong, evidence="e")


def test_it_names_the_leader_and_how_far_the_next_is_behind() -> None:
    made = Synthetic([WEAK, STRONG], THREATS, images=300).results()
    table = leaderboard(made).set_index("model")["worst_case"]
    lead, gap = table["models/strong"], table["models/strong"] - table["models/weak"]
    assert said(made) == [
        f"strong leads in the worst case with {100 * lead:.1f}%, {100 * gap:.1f} points above weak."
    ]


def test_models_that_tie_are_said_to_and_what_could_have_been_seen() -> None:
    models = [SyntheticModel("models/a"), SyntheticModel("models/b")]
    [sentence] = said(Synthetic(models, THREATS, images=40).results())
    assert sentence.startswith("The 2 models cannot be told apart in the worst case (")
    assert "points would have been seen" in sentence


def test_the_difference_that_would_have_been_seen_is_the_one_the_test_sees() -> None:
    rng = np.random.default_rng(0)
    first = (rng.random((1, 200)) < 0.5).astype(float)
    second = (rng.random((1, 200)) < 0.5).astype(float)
    seen = smallest_seen([first, second])
    for factor, sure in ((0.9, False), (1.1, True)):
        moved = second + (first.mean() - second.mean()) + factor * seen
        assert (paired_t([first, moved])[0, 1] < 0.05) == sure


def test_claims_are_counted_and_a_title_that_asks_is_answered() -> None:
    made = Synthetic([WEAK, STRONG], THREATS).results()
    claims = [claim("holds", "does not hold"), claim("holds", "holds"), claim("weaker")]
    assert said(made, claims)[1] == (
        "Of 3 published claims 2 hold and 1 is weaker than published; "
        "under the strong evaluation 1 holds and 1 does not hold."
    )
    made.manifest["report"]["title"] = "Is it robust?"
    assert said(made, claims)[1].startswith("In part: of 3 published claims")
    assert said(made, [claim("holds")])[1] == "Yes: the published claim holds."


def test_every_verdict_on_a_claim_is_counted() -> None:
    made = Synthetic([WEAK, STRONG], THREATS).results()
    claims = [claim(verdict) for verdict in ("holds", "did not learn", "cannot be judged", "new")]
    sentence = said(made, claims)[1]
    assert "1 is void, since a model did not learn" in sentence
    assert all(word in sentence for word in ("1 holds", "1 cannot be judged", "1 new"))


def test_doubtful_models_are_named() -> None:
    made = Synthetic([WEAK, STRONG], THREATS).results()
    verdicts = {"models/weak": {"verdict": "doubtful", "alarms": [], "findings": []}}
    assert said(made, verdicts=verdicts)[-1] == "Doubtful: weak."


def test_a_report_without_attacks_ranks_by_what_it_measures() -> None:
    """The model that is better on clean images is the worse one under corruptions."""
    threats = [clean_threat(), corruption_threat("fog", 1, 0.3), corruption_threat("fog", 2, 0.4)]
    models = [
        SyntheticModel("models/clean", clean=0.99, slope=2.0),
        SyntheticModel("models/steady", clean=0.93, slope=0.1),
    ]
    made = Synthetic(models, threats, images=300).results()
    assert ranked_by(made) == "average_corruptions"
    table = leaderboard(made)
    assert table["model"].tolist() == ["models/steady", "models/clean"]
    assert table["rank"].tolist() == [1, 2]
    assert said(made)[0].startswith("steady leads on average over corruptions with")


def test_chance_is_what_always_answering_one_class_gets() -> None:
    made = Synthetic([WEAK], THREATS).results()
    cell = made.cell("models/weak", 0, "clean")
    assert cell is not None
    labels = made.rows[cell["digest"]].column("label").to_pylist()
    most = max(labels.count(label) for label in set(labels))
    assert chance_levels(made) == {"synthetic-digits": pytest.approx(most / len(labels))}


def test_models_at_chance_are_not_praised() -> None:
    models = [SyntheticModel(f"models/{name}", clean=0.1, slope=0.0) for name in "ab"]
    [sentence] = said(Synthetic(models, THREATS, images=100).results())
    assert "none is above chance" in sentence
