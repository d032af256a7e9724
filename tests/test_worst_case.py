"""The worst case of a noisy model: without luck, for the policy that it describes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from outcomes import Outcomes

from robench.show.leaderboard import leaderboard
from robench.show.results import Results
from robench.show.statistics import wilson
from robench.show.worst_case import chosen, expected, left, majority, shares, vote, votes

CLASSES = 10
MANY = (1, 2, 5, 20, 100)
"""Attacks to choose from."""
TRIES, IMAGES = 8, 2500
POINTS = 0.003
"""Largest bias: 0.3 points. What TRIES leave to chance is a fourth of it."""


def chances(attacks: int, images: int, spread: float, rng: np.random.Generator) -> Any:
    """Probabilities of a right answer, (attacks, images), as measured ones are: most images are
    lost or safe, some in between; attacks differ from image to image, and as a whole a little."""
    image = np.log(rng.gamma(0.15, size=images) + 1e-9) - np.log(rng.gamma(0.6, size=images) + 1e-9)
    own = rng.standard_normal((attacks, images)) + rng.standard_normal((attacks, 1)) / 4
    return 1 / (1 + np.exp(-(image + spread * own)))


def answered(probability: Any, draws: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Answers, (attacks, images, draws), right with those probabilities and else spread over two
    wrong classes, and the labels."""
    labels = np.arange(probability.shape[1]) % CLASSES
    right = rng.random((*probability.shape, draws)) < probability[..., None]
    wrong = labels[:, None] + rng.choice([1, 2], p=[0.8, 0.2], size=right.shape)
    return np.where(right, labels[:, None], wrong % CLASSES).astype(np.int16), labels


def curve(spread: float, draws: int) -> dict[int, dict[str, float]]:
    """For each number of attacks, means over TRIES: the least share, as it was printed once,
    the estimate, and from the true probabilities what the policy's attacks leave, what the best
    single attack leaves, and the least that any choice leaves."""
    rng = np.random.default_rng(0)
    found = {}
    for attacks in MANY:
        tries = []
        for _ in range(TRIES):
            p = chances(attacks, IMAGES, spread, rng)
            answers, labels = answered(p, draws, rng)
            right = answers == labels[:, None]
            folds = shares(right)
            sure = left([fold._replace(scored=p) for fold in folds], chosen(folds))
            tries.append(
                {
                    "least": right.mean(axis=2).min(axis=0).mean(),
                    "estimate": expected(answers, labels).mean(),
                    "policy": sure.mean(),
                    "single": p.mean(axis=1).min(),
                    "best": p.min(axis=0).mean(),
                }
            )
        found[attacks] = {key: float(np.mean([t[key] for t in tries])) for key in tries[0]}
    return found


@pytest.mark.rows(2)
@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0, 3.0])
def test_one_to_a_hundred_attacks_do_not_bias_the_estimate(spread: float) -> None:
    found = curve(spread, draws=8)
    said = {n: {key: round(100 * row[key], 2) for key in row} for n, row in found.items()}
    for row in found.values():
        assert abs(row["estimate"] - row["policy"]) < POINTS, said
        assert row["best"] - POINTS < row["estimate"] < row["single"] + POINTS, said
    if spread == 0:  # all attacks are one: there is nothing to choose, and nothing to gain
        assert all(abs(row["estimate"] - row["best"]) < POINTS for row in found.values()), said
        assert found[100]["least"] < found[100]["best"] - 0.05, f"luck was to be had: {said}"
    if spread == 3:  # choosing per image pays, and most of it is found
        gained = found[20]["single"] - found[20]["estimate"]
        assert gained > (found[20]["single"] - found[20]["best"]) / 2, said


def test_the_interval_counts_the_draws() -> None:
    """Images and draws anew each time: 95% of the intervals hold what the policy leaves."""
    rng = np.random.default_rng(1)
    said, sure = [], []
    for _ in range(400):
        p = chances(5, 200, 0.3, rng)
        answers, labels = answered(p, 4, rng)
        folds = shares(answers == labels[:, None])
        said.append(expected(answers, labels).mean())
        sure.append(left([fold._replace(scored=p) for fold in folds], chosen(folds)).mean())
    low, high = wilson(np.array(said), 200)
    held = ((low <= np.mean(sure)) & (np.mean(sure) <= high)).mean()
    assert held > 0.93, held


def test_copies_of_an_attack_change_nothing() -> None:
    rng = np.random.default_rng(2)
    p = chances(3, 2000, 1.0, rng)
    answers, labels = answered(p, 16, rng)
    once = expected(answers, labels)
    assert np.array_equal(
        expected(np.concatenate([answers[:1]] * 20 + [answers[1:]]), labels), once
    )
    fresh = answered(np.repeat(p[:1], 20, axis=0), 16, rng)[0]
    alone = expected(fresh[:1], labels).mean()
    assert abs(expected(fresh, labels).mean() - alone) < 2 * POINTS
    assert (fresh == labels[:, None]).mean(axis=2).min(axis=0).mean() < alone - 10 * POINTS


@pytest.mark.parametrize("draws", [1, 2, 3, 8, 16, 17])
def test_without_noise_an_image_counts_as_its_least(draws: int) -> None:
    rng = np.random.default_rng(3)
    answers, labels = answered(rng.random((5, 300)).round(), 1, rng)
    answers = np.repeat(answers, draws, axis=2)
    least = (answers == labels[:, None]).min(axis=(0, 2)).astype(float)
    if draws > 1:
        assert np.array_equal(expected(answers, labels), least)
        assert np.array_equal(vote(answers, labels, draws // 2), least)
    else:  # nobody can tell luck from weakness: one attack for all images
        assert expected(answers, labels).mean() >= least.mean()


def test_a_vote_counts_what_most_draws_say() -> None:
    labels = np.array([1, 1, 1, 1])
    answers = np.array([[1, 1, 2], [1, 2, 2], [0, 1, 3], [1, 2, 3]])
    assert majority(answers, labels).tolist() == [1, 0, 0, 1], "of equals the lower class"
    # Two votes of two, then one that begins anew: draws 0 and 1, 2 and 3, 4 and 0.
    said = votes(np.array([[[1, 1, 1, 2, 2]]]), np.array([1]), 2)
    assert said.tolist() == [1.0]
    assert votes(np.array([[[1, 1, 0, 2, 2]]]), np.array([1]), 2).round(6).tolist() == [0.666667]


def test_the_vote_has_an_attack_of_its_own() -> None:
    """One attack leaves a fifth of the draws right on every image, and no vote. The other breaks
    80% of the images for good and leaves the rest alone: more draws are lost, but fewer votes."""
    rng = np.random.default_rng(4)
    p = np.stack([np.full(1000, 0.2), (np.arange(1000) % 10 >= 8).astype(float)])
    answers, labels = answered(p, 40, rng)
    assert expected(answers, labels).mean() == pytest.approx(0.2 * 0.2, abs=0.01)
    assert vote(answers, labels, 20).mean() < 0.01
    assert vote(answers[1:], labels, 20).mean() == pytest.approx(0.2)


def by_hand(stochastic: bool, *right: Any, images: int = 400) -> Results:
    made = Outcomes(images=images, seeds=2, stochastic=stochastic)
    made.model |= {
        "card": {"dataset": {"name": "d"}, "network": {"name": "n"}, "trainer": {"name": "t"}},
        "fields": {"dataset": {}, "network": {}, "trainer": {}},
    }
    made.clean(right[0])
    for place, one in enumerate(right[1:]):
        made.attack(f"attack-{place}", one)
    return made.results()


def tossed(rng: np.random.Generator, chance: float, draws: int = 8) -> Any:
    return rng.random((2, 400, draws)) < chance


def test_a_noisy_row_says_both_numbers_with_their_intervals() -> None:
    rng = np.random.default_rng(5)
    results = by_hand(True, tossed(rng, 0.9), *(tossed(rng, 0.7) for _ in range(9)))
    row = leaderboard(results).iloc[0]
    assert row["worst_case_low"] < 0.7 < row["worst_case_high"], "no more than each attack alone"
    assert row["worst_case_vote"] > row["worst_case"] + 0.05, "most of four are right more often"
    for key in ("worst_case_vote", "clean_vote"):
        assert row[f"{key}_low"] < row[key] < row[f"{key}_high"]


def test_a_silent_model_counts_as_it_always_did() -> None:
    rng = np.random.default_rng(6)
    right = [tossed(rng, 0.8, draws=1) for _ in range(4)]
    results = by_hand(False, *right)
    found = results.worst_case(results.models[0])
    assert found is not None
    assert np.array_equal(found, np.minimum.reduce([one[:, :, 0] for one in right]))
    assert "worst_case_vote" not in leaderboard(results)


def test_noise_of_size_zero_leaves_the_number_as_it_is() -> None:
    rng = np.random.default_rng(7)
    right = [tossed(rng, 0.8, draws=1) for _ in range(4)]
    silent, noisy = by_hand(False, *right), by_hand(True, *(one.repeat(8, 2) for one in right))
    found = [results.worst_case(results.models[0]) for results in (silent, noisy)]
    assert np.array_equal(*found)
    assert np.array_equal(found[0], noisy.worst_vote(noisy.models[0]))
