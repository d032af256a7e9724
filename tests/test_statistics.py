"""Intervals, paired tests and ranks, against other implementations and against known truths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from robench.show.statistics import (
    bootstrap,
    holm,
    mcnemar,
    paired_t,
    pairwise,
    ranks,
    resampling,
    wilson,
)


def test_wilson_interval_of_half_right_on_a_thousand_images_is_46_9_to_53_1() -> None:
    low, high = wilson(np.array([0.5]), 1000)
    assert (round(100 * low[0], 1), round(100 * high[0], 1)) == (46.9, 53.1)


@pytest.mark.parametrize("right", [0, 1, 37, 99, 100])
def test_wilson_agrees_with_scipy(right: int) -> None:
    low, high = wilson(np.array([right / 100]), 100)
    reference = stats.binomtest(right, 100).proportion_ci(method="wilson")
    np.testing.assert_allclose([low[0], high[0]], [reference.low, reference.high], atol=1e-12)


def test_wilson_takes_the_fractional_accuracy_of_noisy_models() -> None:
    low, high = wilson(np.array([0.33]), 10)
    assert 0 < low[0] < 0.33 < high[0] < 1


def test_bootstrap_of_one_seed_agrees_with_the_normal_interval() -> None:
    rng = np.random.default_rng(0)
    correct = (rng.random((1, 1, 2000)) < 0.7).astype(float)
    low, high = bootstrap(correct, resampling(1, 2000, rng))
    margin = 1.96 * np.sqrt(0.7 * 0.3 / 2000)
    assert low[0] == pytest.approx(correct.mean() - margin, abs=0.003)
    assert high[0] == pytest.approx(correct.mean() + margin, abs=0.003)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        skill = rng.normal(0.7, 0.05, size=12)
        correct = (rng.random((12, 200)) < skill[:, None]).astype(float)[None]
        low, high = bootstrap(correct, resampling(12, 200, rng, samples=300))
        covered += bool(low[0] <= 0.7 <= high[0])
    assert 0.88 <= covered / 200 <= 1


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    alike = (rng.random((3, 500)) < 0.6).astype(float)
    apart = (rng.random((3, 500)) < np.array([[0.4], [0.6], [0.8]])).astype(float)
    low, high = bootstrap(np.stack([alike, apart]), resampling(3, 500, rng))
    assert high[1] - low[1] > 2 * (high[0] - low[0])


def test_images_that_all_seeds_share_count_once() -> None:
    rng = np.random.default_rng(3)
    one = (rng.random((1, 1, 300)) < 0.6).astype(float)
    copies = np.repeat(one, 5, axis=1)
    single = bootstrap(one, resampling(1, 300, np.random.default_rng(0)))
    several = bootstrap(copies, resampling(5, 300, np.random.default_rng(0)))
    assert several[1][0] - several[0][0] == pytest.approx(single[1][0] - single[0][0], rel=0.1)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_bootstrap_never_claims_certainty(value: float) -> None:
    correct = np.full((1, 3, 100), value)
    low, high = bootstrap(correct, resampling(3, 100, np.random.default_rng(0)))
    expected = wilson(np.array([value]), 100)
    assert (low[0], high[0]) == (expected[0][0], expected[1][0])
    assert high[0] - low[0] > 0.03


def test_mcnemar_agrees_with_statsmodels() -> None:
    rng = np.random.default_rng(4)
    correct = rng.random((4, 120)) < np.array([[0.5], [0.6], [0.75], [0.9]])
    p = mcnemar(correct)
    for i in range(4):
        for j in range(i):
            a, b = correct[i], correct[j]
            table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
            assert p[i, j] == pytest.approx(reference_mcnemar(table, exact=True).pvalue)
            assert p[j, i] == p[i, j]


@pytest.mark.parametrize("models", [1, 2, 3, 9])
def test_holm_agrees_with_statsmodels_to_the_bit(models: int) -> None:
    rng = np.random.default_rng(models)
    p = np.round(rng.random((models, models)) ** 3, 2)  # some are equal, some are zero
    p = np.triu(p, 1) + np.triu(p, 1).T + np.eye(models)
    pairs = np.triu_indices(models, 1)
    adjusted = holm(p)
    assert np.array_equal(adjusted, adjusted.T)
    assert np.array_equal(np.diag(adjusted), np.ones(models))
    if models > 1:
        assert np.array_equal(adjusted[pairs], multipletests(p[pairs], method="holm")[1])


def test_a_model_cannot_be_told_apart_from_itself() -> None:
    correct = np.random.default_rng(5).random((1, 50)).repeat(2, axis=0) < 0.5
    assert mcnemar(correct).min() == 1
    assert paired_t([correct[:1].astype(float), correct[1:].astype(float)]).min() == 1


def test_paired_t_agrees_with_scipy_for_one_seed_each() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.random((1, 80)), rng.random((1, 80)) * 0.9
    assert paired_t([a, b])[0, 1] == pytest.approx(stats.ttest_rel(a[0], b[0]).pvalue)


def test_variance_between_seeds_makes_a_difference_less_sure() -> None:
    rng = np.random.default_rng(7)
    base = rng.random((1, 400)) < 0.5
    steady = [np.repeat(base, 3, axis=0).astype(float) for _ in range(2)]
    steady[1][:, :40] = 1.0
    shaky = [steady[0], np.stack([base[0], base[0], base[0]]).astype(float)]
    shaky[1][2, :120] = 1.0
    shaky[1][:2, :3] = 1.0
    assert paired_t(steady)[0, 1] < 0.001
    assert paired_t(shaky)[0, 1] > 0.05


def test_paired_t_is_not_surer_than_the_images_allow() -> None:
    sure = paired_t([np.ones((1, 6)), np.zeros((1, 6))])
    assert sure[0, 1] == 2.0**-5


def test_false_discoveries_of_the_paired_t_test_stay_at_its_level() -> None:
    rng = np.random.default_rng(8)
    found = 0
    for _ in range(400):
        ease = rng.random(150)
        a, b = (np.mean(rng.random((4, 150)) < ease, axis=0)[None] for _ in range(2))
        found += bool(paired_t([a, b])[0, 1] < 0.05)
    assert found / 400 < 0.09


def test_deterministic_pairs_get_mcnemar_and_all_others_the_t_test() -> None:
    rng = np.random.default_rng(9)
    exact = [(rng.random((1, 60)) < 0.6).astype(float) for _ in range(2)]
    noisy = rng.random((1, 60))
    p = pairwise([*exact, noisy])
    assert p[0, 1] == mcnemar(np.concatenate(exact) > 0.5)[0, 1]
    assert p[0, 2] == paired_t([exact[0], noisy])[0, 1]


def test_holm_multiplies_the_least_p_value_by_the_number_of_pairs() -> None:
    p = np.array([[1, 0.01, 0.04], [0.01, 1, 0.5], [0.04, 0.5, 1]])
    adjusted = holm(p)
    assert adjusted[0, 1] == pytest.approx(0.03)
    assert adjusted[0, 2] == pytest.approx(0.08)
    assert adjusted[1, 2] == pytest.approx(0.5)
    assert (adjusted == adjusted.T).all()


def test_models_that_cannot_be_told_apart_share_a_rank() -> None:
    p = np.array([[1, 0.3, 0.001], [0.3, 1, 0.001], [0.001, 0.001, 1]])
    found = ranks(np.array([0.52, 0.5, 0.2]), p)
    assert found.rank.tolist() == [1, 1, 3]
    assert found.best.tolist() == [1, 1, 3]
    assert found.worst.tolist() == [2, 2, 3]


def test_a_rank_counts_the_models_that_are_surely_above() -> None:
    """a ~ b and b ~ c, but a > c: one model is surely above c, which may be the second."""
    p = np.array([[1, 0.3, 0.001], [0.3, 1, 0.3], [0.001, 0.3, 1]])
    found = ranks(np.array([0.6, 0.5, 0.4]), p)
    assert found.rank.tolist() == [1, 1, 2]
    assert [found.best.tolist(), found.worst.tolist()] == [[1, 1, 2], [2, 3, 3]]


def test_ranks_do_not_depend_on_the_order_of_the_models() -> None:
    accuracy = np.array([0.2, 0.52, 0.5])
    p = np.array([[1, 0.001, 0.001], [0.001, 1, 0.3], [0.001, 0.3, 1]])
    assert ranks(accuracy, p).rank.tolist() == [3, 1, 1]


def test_a_leader_that_can_be_told_from_none_draws_nobody_up() -> None:
    """Two seeds that disagree: the leader's mean is 25 points above c, and still in doubt."""
    p = np.array([[1, 1, 1, 1], [1, 1, 0.001, 0.001], [1, 0.001, 1, 1], [1, 0.001, 1, 1]])
    found = ranks(np.array([0.75, 0.7, 0.5, 0.45]), p)
    assert found.rank.tolist() == [1, 1, 2, 2]
    assert found.best.tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize("seed", range(200))
def test_a_rank_lies_in_its_own_range_and_follows_accuracy(seed: int) -> None:
    """Whatever the tests say of each pair, as they may where variances come in any order."""
    rng = np.random.default_rng(seed)
    models = int(rng.integers(1, 9))
    accuracy = rng.integers(0, 8, models) / 8
    p = np.triu(rng.random((models, models)) ** 3, 1)
    found = ranks(accuracy, p + p.T + np.eye(models))
    assert (found.best <= found.rank).all()
    assert (found.rank <= found.worst).all()
    in_order = found.rank[np.argsort(-accuracy, kind="stable")]
    assert (np.diff(in_order) >= 0).all()


@pytest.mark.parametrize("seed", range(20))
def test_the_same_of_models_whose_seeds_vary_by_any_amount(seed: int) -> None:
    rng = np.random.default_rng(seed)
    models = [
        np.clip(rng.normal(rng.random(), rng.random() / 2, (seeds, 1)), 0, 1) > rng.random((1, 60))
        for seeds in rng.integers(1, 5, 6)
    ]
    arrays = [model.astype(float) for model in models]
    accuracy = np.array([array.mean() for array in arrays])
    found = ranks(accuracy, holm(pairwise(arrays)))
    assert ((found.best <= found.rank) & (found.rank <= found.worst)).all()


def test_one_model_alone_has_rank_one() -> None:
    assert ranks(np.array([0.4]), holm(pairwise([np.ones((1, 5))]))).rank.tolist() == [1]
