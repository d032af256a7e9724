"""The headline of a page: generated from the results, and true of them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from outcomes import Outcomes
from proofs_by_hand import proven
from synthetic import (
    Synthetic,
    SyntheticModel,
    attack_threat,
    clean_threat,
    corruption_threat,
    quick_models,
    quick_threats,
)

from robench.show.claims import Claim
from robench.show.diagnostics.finding import Verdict
from robench.show.leaderboard import chance_levels, leaderboard, ranked_by
from robench.show.report.headline import headline
from robench.show.report.plots.recall import recalls
from robench.show.results import Results
from robench.show.statistics import holm, pairwise, smallest_seen

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
    assert re.search(r"%; only a difference of \d+ points or more would show\)\.$", sentence)


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_difference_that_would_have_been_seen_is_the_one_the_t_test_sees(seeds: int) -> None:
    rng = np.random.default_rng(0)
    first = (rng.random((seeds, 200)) + (rng.random((seeds, 200)) < 0.5)) / 2
    second = (rng.random((seeds, 200)) + (rng.random((seeds, 200)) < 0.5)) / 2
    seen = smallest_seen([first, second])
    for factor, sure in ((0.99, False), (1.01, True)):
        moved = second + (first.mean() - second.mean()) + factor * seen
        assert (pairwise([first, moved])[0, 1] < 0.05) == sure


@pytest.mark.parametrize("pairs", [1, 10])
def test_of_two_models_without_noise_it_is_what_mcnemars_test_sees(pairs: int) -> None:
    """Forty of 200 images are answered by one of them only: moved from one to the other."""
    rng = np.random.default_rng(0)
    common = rng.random(200) < 0.5
    common[:40] = False

    def apart(of_second: int) -> list[np.ndarray]:
        first, second = common.copy(), common.copy()
        second[:of_second] = True
        first[of_second:40] = True
        return [first[None].astype(float), second[None].astype(float)]

    seen = smallest_seen(apart(20), pairs)
    told = [abs(40 - 2 * k) / 200 for k in range(41) if pairwise(apart(k))[0, 1] * pairs < 0.05]
    assert seen == pytest.approx(min(told))


def test_models_that_answer_alike_still_could_be_told_apart_by_enough_images() -> None:
    """Six images that only one of two models gets are p = 2/64: the fewest that McNemar sees."""
    same = np.zeros((1, 100))
    assert smallest_seen([same, same]) == pytest.approx(0.06)
    assert smallest_seen([same[:, :5], same[:, :5]]) == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_a_difference_that_was_not_seen_is_never_larger_than_what_would_have_been(
    seed: int,
) -> None:
    """One pair of models hardly differs, another does: the larger is what is said."""
    rng = np.random.default_rng(seed)
    base = (rng.random((1, 80)) < 0.6).astype(float)
    near, far = base.copy(), (rng.random((1, 80)) < 0.55).astype(float)
    near[0, 0] = 1 - near[0, 0]
    models = [base, near, far]
    means = [model.mean() for model in models]
    if (holm(pairwise(models))[np.triu_indices(3, 1)] >= 0.05).all():
        assert smallest_seen(models) >= max(means) - min(means)
    assert smallest_seen(models) >= smallest_seen([base, far])


def test_some_that_answer_alike_do_not_speak_for_the_others() -> None:
    """Two of three are the same network: `the same images right` would be said of all three."""

    def with_twins(*names: str) -> str:
        models = [SyntheticModel(f"models/{name}", clean=0.9) for name in names]
        made = Synthetic(models, THREATS, images=40).results()
        cells = made.manifest["cells"]
        digests = {cell["threat"]: cell["digest"] for cell in cells if cell["model"] == "models/a"}
        for cell in cells:
            if cell["model"] == "models/b":
                cell["digest"] = digests[cell["threat"]]
        return said(made)[0]

    assert with_twins("a", "b").endswith("%; they answer the same images right).")
    assert with_twins("a", "b", "c").startswith("The 3 models cannot be told apart")
    assert with_twins("a", "b", "c").endswith("points or more would show).")


def test_where_nothing_is_left_of_any_model_they_do_not_tie_but_fall() -> None:
    models = [SyntheticModel("models/a"), SyntheticModel("models/b")]
    made = Synthetic(models, THREATS, images=40).results()
    place = next(iter(made.rows.values())).column_names.index("correct")
    broken = pa.array([0.0] * 40, pa.float32())
    cells = [cell["digest"] for cell in made.manifest["cells"] if cell["threat"] == "fgsm"]
    rows = {name: made.rows[name].set_column(place, "correct", broken) for name in cells}
    made = Results(made.manifest, {**made.rows, **rows})
    assert said(made) == ["Nothing is left of any of the 2 models in the worst case."]


def test_each_data_set_has_its_sentence() -> None:
    models = [
        SyntheticModel(f"models/{data}-{name}", dataset={"name": data})
        for data in ("one", "two", "three", "four", "five")
        for name in "ab"
    ]
    told = said(Synthetic(models, THREATS, images=40).results())
    assert [text.split(":")[0] for text in told[:4]] == ["one", "two", "three", "four"]
    assert told[4] == "And 1 more data set."


def test_many_doubtful_models_are_counted_and_the_others_named() -> None:
    models = [SyntheticModel(f"models/{name}") for name in "abcdef"]
    made = Synthetic(models, THREATS, images=40).results()
    doubt: Verdict = {"verdict": "doubtful", "alarms": [], "findings": []}
    believed: Verdict = {"verdict": "believable", "alarms": [], "findings": []}
    verdicts = {model.name: believed if model.name == "models/c" else doubt for model in models}
    told = headline(made, leaderboard(made), verdicts, [])
    assert told[-1] == "5 of 6 models are doubtful, all but c."


def test_what_attacks_find_of_what_can_be_broken_is_said() -> None:
    made = proven(Synthetic(quick_models(), quick_threats()).results())
    known = recalls(made, made.models)
    [sentence] = [text for text in said(made) if text.startswith("Of the images that can be")]
    best, last = known[0], known[-1]
    assert f"attacks find: {best.card} {100 * best.found / best.breakable:.1f}%" in sentence
    assert f"{last.card} finds least" in sentence or len(known) <= 4


def test_claims_are_counted_and_a_title_that_asks_is_answered() -> None:
    made = Synthetic([WEAK, STRONG], THREATS).results()
    claims = [claim("holds", "does not hold"), claim("holds", "holds"), claim("weaker")]
    assert said(made, claims)[1] == (
        "Of 3 published claims 2 hold and 1 is weaker than published; "
        "of the 2 judged under the strong evaluation 1 holds and 1 does not hold."
    )
    assert said(made, [claim("holds", "holds"), claim("holds")])[1] == (
        "Of 2 published claims 2 hold; the one judged under the strong evaluation holds."
    )
    made.manifest["report"]["title"] = "Is it robust?"
    assert said(made, claims)[1].startswith("In part: of 3 published claims")
    assert said(made, [claim("holds")])[1] == "Yes: the published claim holds."


def test_claims_without_figures_are_not_weaker_than_published() -> None:
    made = Synthetic([WEAK, STRONG], THREATS, claims=[{"text": "t"}]).results()
    assert said(made, [claim("holds", "weaker")])[1] == (
        "The claim holds under the threat that papers report; "
        "under the strong evaluation it is weaker."
    )


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


def test_where_nothing_is_attacked_nobody_leads_and_what_is_proved_is_said_ball_by_ball() -> None:
    """A certificate of noise looks for no point to break: the clean accuracy of its rows would
    read as a worst case."""
    right = np.ones((1, 4, 4), bool)
    made = Outcomes(images=4, stochastic=True).clean(right)
    named = {"dataset": {"name": "d"}, "network": {"name": "n"}, "trainer": {"name": "t"}}
    made.model |= {"card": named, "fields": named}
    made.attack("near", right, eps=0.01, role="proof", proved=[0.5, 0.5, 0.9, 0.0])
    made.attack("far", right, eps=0.1, role="proof", proved=[0.0, 0.0, 0.0, 0.0])
    [sentence] = said(made.results())
    assert sentence == "Proved at best: 47.5% at L∞ ≤ 0.01, nothing at L∞ ≤ 0.1 (of mine)."
    made.attack("pgd", right, eps=0.1)
    assert "in the worst case" in said(made.results())[0]


def test_who_is_at_chance_neither_leads_nor_ties() -> None:
    """Random answers fall under no attack: they stand above networks that learnt something."""
    models = [SyntheticModel("models/dice", clean=0.1, slope=0.0), WEAK, STRONG]
    [sentence] = said(Synthetic(models, THREATS, images=300).results())
    assert sentence.startswith("strong leads")
    assert sentence.endswith("on clean images: dice.")
    [sentence] = said(Synthetic(models[:2], THREATS, images=300).results())
    assert sentence.startswith("weak keeps")
    assert sentence.endswith("on clean images: dice.")
