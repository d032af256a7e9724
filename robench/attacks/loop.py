"""The loop that the whole gradient family shares: gradient, comparison, step, projection.

What each setting means, and from which paper it is, stands in gradient.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robench.attacks.contest import (
    CONFIRMATIONS,
    ROUNDING,
    Contest,
    Peaks,
    confirmed,
    judge,
    rank,
)
from robench.attacks.diversity import diversify, gaussian_kernel, smooth
from robench.attacks.losses import LOSSES
from robench.attacks.steps import AdaptiveSteps, FixedSteps, Region, Steps, per_image
from robench.attacks.target import Answer, WhiteBoxTarget

if TYPE_CHECKING:
    from robench.attacks.gradient import GradientAttack

JUDGED = 8
"""Least number of fresh draws by which a run's candidates on a noisy network are compared."""


class Run:
    """One run of the loop: one start, one surrogate. Everything it holds is about the images still
    under attack, `rows` of the batch."""

    def __init__(
        self,
        attack: GradientAttack,
        target: WhiteBoxTarget,
        contest: Contest,
        surrogate: str | None,
        rng: torch.Generator,
    ) -> None:
        self.attack = attack
        self.target = target
        self.contest = contest
        self.surrogate = surrogate
        self.draws = attack.eot if target.stochastic or attack.diversity else 1
        self.view: Callable[[Tensor], Tensor] | None = None
        if attack.diversity:
            self.view = partial(
                diversify, probability=attack.diversity, smallest=attack.smallest, rng=rng
            )
        self.kernel = (
            gaussian_kernel(attack.smoothing, attack.smoothing_sigmas) if attack.smoothing else None
        )

    def go(
        self, start: Tensor, x: Tensor, y: Tensor, aim: Tensor | None, rows: Tensor, judged: bool
    ) -> None:
        """Attack the images and enter what was found into the contest.

        Args:
            start, x, y, aim: first iterates, clean images, labels and classes to run towards, of
                the images in `rows`.
            judged: whether the result competes with other runs'.
        """
        attack = self.attack
        self.target.record.begin_run()
        self.y, self.aim, self.rows = y, aim, rows
        self.region = Region(self.target.ball, x)
        self.steps = self._steps()
        self.peaks = Peaks(start)
        x_adv, previous = start, start
        for step in range(attack.steps):
            loss = partial(LOSSES[attack.loss], aim=self.aim)
            index = self.rows if len(self.rows) < self.target.images else None
            answer = self.target.gradient(
                x_adv, self.y, loss, self.draws, self.surrogate, index, self.view
            )
            gradient, value = answer.gradient, answer.loss
            if attack.keep == "best":
                stay = self._compare(x_adv, previous, answer, attack.steps - step)
                if stay is not None:
                    if not len(stay):
                        return
                    x_adv = x_adv.index_select(0, stay)
                    gradient, value = gradient.index_select(0, stay), value[stay]
            if self.kernel is not None:
                gradient = smooth(gradient, self.kernel)
            previous = x_adv
            x_adv = self.steps.advance(x_adv, gradient, value, self.region)
        if attack.keep == "best" or judged:
            self._finish(x_adv, previous, judged)
        else:
            self.contest.images = x_adv  # the only run, and nobody left it

    def _steps(self) -> Steps:
        attack, eps = self.attack, self.target.eps
        if attack.schedule == "apgd":
            return AdaptiveSteps(eps, attack.steps)
        default = eps if attack.steps == 1 else 2.5 * eps / attack.steps
        return FixedSteps(attack.step_size or default, attack.momentum)

    def _compare(self, x_adv: Tensor, previous: Tensor, answer: Answer, left: int) -> Tensor | None:
        """Take down how good the iterates are; rows that stay, when it is time for some to leave.

        Args:
            left: steps left, this one included.
        """
        share, gap = answer.fooled, answer.margin
        if self.view is not None:  # those are of what the network was shown instead
            share, gap = judge(self.target, x_adv, self.y, self.draws, self.rows)
        ranks = rank(share, gap, self.target.stochastic)
        self.peaks.note(x_adv, previous, ranks)
        if not self.attack.leave:
            return None
        broken = self._broken(x_adv, share, gap, 3 * self.draws * left)
        if len(broken):
            self.peaks.close(broken)
            self._enter(x_adv.index_select(0, broken), ranks[broken], broken, certain=True)
        gone = int(self.peaks.closed.sum())
        # Leaving costs about one step in copying; so many images must leave that it saves one.
        if gone < len(self.rows) and gone * left < len(self.rows):
            return None
        stay = torch.nonzero(~self.peaks.closed)[:, 0]
        self.y, self.rows = self.y[stay], self.rows[stay]
        self.aim = None if self.aim is None else self.aim[stay]
        for state in (self.region, self.steps, self.peaks):
            state.keep(stay)
        return stay

    def _broken(self, x_adv: Tensor, share: Tensor, gap: Tensor, cost: int) -> Tensor:
        """Rows that are broken now. cost: forward passes that each would still cost otherwise."""
        if not self.target.stochastic:
            return torch.nonzero((gap > ROUNDING) & ~self.peaks.closed)[:, 0]
        rows = torch.nonzero((share == 1) & ~self.peaks.closed)[:, 0]
        if not len(rows) or cost <= CONFIRMATIONS:
            return rows[:0]
        return rows[confirmed(self.target, x_adv[rows], self.y[rows], self.rows[rows])]

    def _finish(self, x_adv: Tensor, previous: Tensor, judged: bool) -> None:
        """The last iterate, which no gradient has shown yet, competes with the peak.

        Args:
            judged: whether other runs follow, which may skip images that are broken.
        """
        target, draws = self.target, max(self.draws, JUDGED)
        share, gap = judge(target, x_adv, self.y, draws, self.rows)
        images, ranks = x_adv, rank(share, gap, target.stochastic)
        if self.attack.keep == "best":
            self.peaks.note(x_adv, previous, ranks)
            images, ranks = self.peaks.images(x_adv), self.peaks.rank
            if target.stochastic:
                # The peak was chosen by the draws that its gradient was taken with: fresh ones
                # decide between it and the last iterate.
                other, wide = judge(target, images, self.y, draws, self.rows)
                last = self.peaks.here | (rank(share, gap, True) > rank(other, wide, True))
                images = torch.where(per_image(last, x_adv), x_adv, images)
                share, gap = torch.where(last, share, other), torch.where(last, gap, wide)
                ranks = rank(share, gap, True)
        rows = torch.nonzero(~self.peaks.closed)[:, 0]
        standing = images if len(rows) == len(images) else images.index_select(0, rows)
        self._enter(standing, ranks[rows], rows)
        if judged and self.attack.leave:
            if target.stochastic:
                rows = rows[share[rows] == 1]
                sure = confirmed(target, images[rows], self.y[rows], self.rows[rows])
            else:
                sure = ranks[rows] > ROUNDING
            self.contest.broken[self.rows[rows[sure]]] = True

    def _enter(self, images: Tensor, ranks: Tensor, rows: Tensor, certain: bool = False) -> None:
        """Images and their ranks into the contest. certain: they are broken."""
        broken = torch.full((len(rows),), certain, device=rows.device)
        self.contest.enter(self.rows[rows], images, ranks, broken)
