"""When is it settled that an image fools a noisy network? A test that may look after every draw.

Tested is, for one point: the network answers right with a probability of RIGHT or more. After n
draws, k of them right, the evidence against it is the likelihood ratio of a mixture,

    M(n, k) = E[q^k (1 - q)^(n - k)] / (RIGHT^k (1 - RIGHT)^(n - k)),  q ~ Beta(PRIOR) below RIGHT.

While the hypothesis holds M is a nonnegative supermartingale that starts at 1, so by Ville's
inequality it ever reaches 1 / LEVEL with a probability of LEVEL at most, however often and whenever
it is looked at, and whatever makes the asking end (Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon
2021, arXiv 1810.08240, section 3). So an image that leaves an attack at a point that the network
gets right with probability RIGHT or more does so with a probability of LEVEL at most; each point
that is asked about has an error of its own.

31 wrong answers in a row settle it, or one right answer among 63, and two among 88.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from robench.attacks.target import ScoreTarget

VERSION = 1
"""Part of the identity of what attacks make of noisy networks: raised when this rule changes."""
RIGHT = 0.1
"""Probability of a right answer below which an image counts as broken."""
LEVEL = 0.05
"""Probability with which an image may leave an attack though it is right as often as that."""
PRIOR = (0.5, 50.0)
"""Of the beta distribution that the alternatives are mixed by: most of it close to 0."""
ROUNDS = (2, 6)
"""Draws of the first rounds of questions, which end most doubtful cases; the next rounds are as
long as it takes to settle the matter if every further answer is wrong."""
MOST = 64
"""Draws after which no more are asked for."""


def evidence(draws: int, right: int) -> float:
    """The logarithm of M after so many draws, of which so many were right."""
    from scipy.special import betainc, betaln  # it takes longer to import than all else here

    a, b = PRIOR
    wrong = draws - right
    mixed = betaln(a + right, b + wrong) + math.log(betainc(a + right, b + wrong, RIGHT))
    mixed -= betaln(a, b) + math.log(betainc(a, b, RIGHT))
    return float(mixed - right * math.log(RIGHT) - wrong * math.log1p(-RIGHT))


@cache
def most_right(draws: int, least: float) -> int:
    """How many of so many draws may be right where M is at least `least`; -1: none may."""
    right = -1
    while right < draws and evidence(draws, right + 1) >= math.log(least):
        right += 1
    return right


@cache
def settling(right: int) -> int:
    """Least number of draws that settle the matter where so many are right."""
    draws = right + 1
    while most_right(draws, 1 / LEVEL) < right:
        draws += 1
    return draws


def confirmed(target: ScoreTarget, x: Tensor, y: Tensor, index: Tensor, wrong: int = 0) -> Tensor:
    """Whether it is settled that an image fools a noisy network, (n,) bool. It is not asked about
    any more once that is settled, or the evidence speaks against it, or too much would be left to
    ask.

    Args:
        wrong: fresh draws that misclassified all of these images at these very points already.
    """
    verdict = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    left = torch.arange(len(x), device=x.device)
    right = torch.zeros(len(x), dtype=torch.long, device=x.device)
    draws, rounds = wrong, list(ROUNDS)
    while True:
        verdict[left[right <= most_right(draws, 1 / LEVEL)]] = True
        doubtful = (right > most_right(draws, 1 / LEVEL)) & (right <= most_right(draws, 1.0))
        left, right = left[doubtful], right[doubtful]
        if not len(left):
            return verdict
        end = settling(int(right.min()))
        more = min(rounds.pop(0) if rounds else MOST, end - draws)
        if end > MOST or not target.affords(more):
            return verdict
        drawn = target.answers(x[left], more, index[left])
        right = right + (~(target.gap(drawn, y[left]) > 0)).sum(0)
        draws += more
