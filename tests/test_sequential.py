"""Leaving an attack on a noisy network is a test with a stated error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from robench.attacks.losses import margin
from robench.attacks.sequential import LEVEL, MOST, PRIOR, RIGHT, confirmed, evidence, settling


class Coin:
    """A target that answers right with given probabilities, (n,), and counts what it is asked."""

    def __init__(self, right: Tensor, queries: float = math.inf) -> None:
        self.right, self.queries = right, queries
        self.asked = torch.zeros(len(right))
        self.rng = torch.Generator().manual_seed(0)

    def gap(self, logits: Tensor, sought: Tensor) -> Tensor:
        return margin(logits, sought)

    def affords(self, questions: int) -> bool:
        return float(self.asked.max()) + questions <= self.queries

    def answers(self, x: Tensor, draws: int, index: Tensor) -> Tensor:
        self.asked[index] += draws
        right = torch.rand(draws, len(index), generator=self.rng) < self.right[index]
        return torch.stack([right.float(), 1 - right.float()], dim=2)


def ask(right: float, images: int, wrong: int = 0, **limits: float) -> tuple[Tensor, Coin]:
    coin: Any = Coin(torch.full((images,), right), **limits)
    labels = torch.zeros(images, dtype=torch.long)
    return confirmed(coin, torch.zeros(images, 1), labels, torch.arange(images), wrong), coin


@pytest.mark.parametrize(("draws", "right"), [(1, 0), (31, 0), (40, 3), (63, 1)])
def test_the_evidence_is_the_likelihood_ratio_of_the_mixture(draws: int, right: int) -> None:
    prior = stats.beta(*PRIOR)

    def ratio(q: float) -> float:
        other = RIGHT**right * (1 - RIGHT) ** (draws - right)
        return float(q**right * (1 - q) ** (draws - right) / other * prior.pdf(q))

    mixed, _ = integrate.quad(ratio, 0, RIGHT, points=[1e-6, 1e-3])
    assert math.exp(evidence(draws, right)) == pytest.approx(mixed / prior.cdf(RIGHT), rel=1e-4)


@pytest.mark.rows(1)
@pytest.mark.parametrize("p", [RIGHT, 0.12, 0.3])
def test_looking_after_every_draw_errs_no_more_often_than_stated(p: float) -> None:
    """The plain test, the chance of so few right answers, errs far more often if one may look again
    and again: the level is owed to the test, not to luck."""
    streams, longest = 4000, 1000
    right = np.random.default_rng(0).random((streams, longest)) < p
    so_far = right.cumsum(axis=1)
    fell = np.zeros(streams, dtype=bool)
    plainly = np.zeros(streams, dtype=bool)
    for draws in range(1, longest + 1):
        counts, where = np.unique(so_far[:, draws - 1], return_inverse=True)
        settled = np.array([evidence(draws, int(k)) >= -math.log(LEVEL) for k in counts])
        fell |= settled[where]
        plainly |= stats.binom.cdf(so_far[:, draws - 1], draws, RIGHT) <= LEVEL
    chance = 3 * math.sqrt(LEVEL * (1 - LEVEL) / streams)
    assert fell.mean() <= LEVEL + chance
    if p == RIGHT:
        assert plainly.mean() > 2 * LEVEL


def test_images_leave_at_that_level_however_the_asking_ends() -> None:
    chance = 3 * math.sqrt(LEVEL / 20_000)
    assert ask(RIGHT, 20_000)[0].float().mean() <= LEVEL + chance
    assert ask(0.02, 20_000)[0].float().mean() > 0.6, "broken but for a rare draw"
    assert ask(0.02, 20_000)[0].float().mean() > 0.98**32 + 0.05, "one right answer may be made up"


def test_a_broken_image_leaves_after_31_draws_and_a_doubtful_one_is_dropped_at_once() -> None:
    verdict, coin = ask(0.0, 50)
    assert verdict.all()
    assert (coin.asked == settling(0)).all()
    assert settling(0) == 31
    assert (ask(0.0, 50, wrong=10)[1].asked == 21).all(), "draws made before count"
    assert (ask(0.0, 50, wrong=40)[1].asked == 0).all()
    verdict, coin = ask(0.5, 10_000)
    assert not verdict.any()
    assert coin.asked.mean() < 4
    assert ask(0.03, 10_000)[1].asked.max() <= MOST


def test_an_attack_that_may_not_ask_on_keeps_the_image() -> None:
    verdict, coin = ask(0.0, 5, queries=30)
    assert not verdict.any()
    assert coin.asked.max() <= 30
