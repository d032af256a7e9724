"""Flips of events (binary pixels) on networks that jump: greedy along the network's own
derivative and along ones that adapt, away from the right class and towards every other, then swaps.
A number of flips is all it takes.

A flip turns pixel p into 1 - p and is worth, to first order, (1 - 2p) dL/dp. On networks that jump
that is a guess, so that the most promising ones are tried; the best of them is flipped even where
none helps, since a flat stretch may lie before a jump. An image that stands with all its flips
spent may still fall when one is taken back for another. `flips` is the greedy loop for networks
with a gradient.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robench.attacks.base import Attack
from robench.attacks.contest import ROUNDING, Best, judge, rank
from robench.attacks.losses import margin
from robench.attacks.target import WhiteBoxTarget
from robench.networks.adaptive import AdaptiveSurrogate

DRAWS = 10
"""Draws of a noisy network that each gradient and each trial is averaged over."""
DERIVATIVES = ("one-sided", "adaptive")
BACK = 3
"""Flips that a swap thinks of taking back."""


class EventFlips(Attack):
    """eps flips, chosen by gradients that adapt and by trial."""

    candidates: int = Field(default=8, ge=1)
    """Flips that are tried at each step, the most promising ones."""
    targets: int = Field(default=9, ge=0)
    """Likeliest wrong classes that runs aim at, after one away from the right class."""
    swaps: int = Field(default=10, ge=0)
    """Rounds in which an image that still stands takes one flip back for another."""
    norms: ClassVar[tuple[str, ...]] = ("l0",)
    randomised: ClassVar[bool] = False

    def perturb(self, target: WhiteBoxTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        budget = math.floor(self.finite_eps(target))
        best = Best(x)
        draws = DRAWS if target.stochastic else 1
        every = torch.arange(len(x), device=x.device)
        self._enter(target, best, x, y, every, draws)
        if budget:
            wrong = target.logits(x).scatter(1, y[:, None], -torch.inf)
            aims: list[Tensor | None] = [None]
            aims += wrong.topk(min(self.targets, target.classes - 1), dim=1).indices.T
            self._greedy(target, best, x, y, None, None, budget, draws)
            for aim in aims:
                for derivative in DERIVATIVES if target.jumps else ():
                    self._greedy(target, best, x, y, aim, derivative, budget, draws)
                if aim is not None and not target.jumps:
                    self._greedy(target, best, x, y, aim, None, budget, draws)
            for _ in range(self.swaps):
                self._swap(target, best, x, y, budget, draws)
        return best.images

    def _greedy(
        self, target: WhiteBoxTarget, best: Best, x: Tensor, y: Tensor, aim: Tensor | None,
        derivative: str | None, budget: int, draws: int,
    ) -> None:  # fmt: skip
        """One flip after the other. derivative: None: the network's own, through its output."""
        rows = best.standing()
        adaptive = None if derivative is None else AdaptiveSurrogate(derivative, len(rows))
        x_adv = x[rows].clone()
        for _ in range(budget):
            if not len(rows):
                return
            aimed = None if aim is None else aim[rows]
            answer = target.gradient(
                x_adv, y[rows], margin, draws, adaptive, rows, aim=aimed,
                on="output" if adaptive is None else "potential",
                through_reset=adaptive is None,
            )  # fmt: skip
            worth = _worth(x_adv, answer.gradient)
            worth.masked_fill_(~_free(target, x_adv, x[rows]), -torch.inf)
            places = worth.topk(min(self.candidates, worth.shape[1]), dim=1).indices
            tried = [
                _margins(target, _flipped(x_adv, place), y[rows], aimed, rows, draws)
                for place in places.split(1, dim=1)  # type: ignore[no-untyped-call]
            ]
            chosen = places.gather(1, torch.stack(tried, 1).argmax(1, keepdim=True))
            x_adv = _flipped(x_adv, chosen)
            self._enter(target, best, x_adv, y, rows, draws)
            left = torch.nonzero(~best.broken[rows])[:, 0]
            if len(left) < len(rows):
                rows, x_adv = rows[left], x_adv[left]
                if adaptive is not None:
                    adaptive.keep(left)

    def _swap(
        self, target: WhiteBoxTarget, best: Best, x: Tensor, y: Tensor, budget: int,
        draws: int,
    ) -> None:  # fmt: skip
        """For every image that stands: of some flips taken back and some made in their place, the
        pair that does most, where it does more than what there is."""
        rows = best.standing()
        if not len(rows):
            return
        now, clean = best.images[rows], x[rows]
        derivative = AdaptiveSurrogate(DERIVATIVES[0], len(rows))
        answer = target.gradient(
            now, y[rows], margin, draws, derivative, rows, on="potential", through_reset=False
        )
        worth, spent = _worth(now, answer.gradient), (now != clean).flatten(1)
        made = worth.masked_fill(~_free(target, now, clean), -torch.inf)
        back = worth.masked_fill(~spent, -torch.inf)
        for undone in back.topk(min(BACK, budget), dim=1).indices.T:
            # Where there are flips left, nothing is taken back.
            fewer = torch.where(
                (spent.sum(1) >= budget).view(-1, 1, 1, 1), _flipped(now, undone[:, None]), now
            )
            for place in made.topk(min(self.candidates, made.shape[1]), dim=1).indices.T:
                self._enter(target, best, _flipped(fewer, place[:, None]), y, rows, draws)

    def _enter(
        self, target: WhiteBoxTarget, best: Best, x_adv: Tensor, y: Tensor, rows: Tensor,
        draws: int,
    ) -> None:  # fmt: skip
        share, gap = judge(target, x_adv, y[rows], draws, rows)
        best.enter(rows, x_adv, rank(gap, share) if target.stochastic else rank(gap))
        sure = (share == 1) & (gap > ROUNDING)
        if not target.stochastic:
            best.broken[rows[sure]] = True


def _worth(x: Tensor, gradient: Tensor) -> Tensor:
    """What each flip promises, (n, pixels)."""
    return ((1 - 2 * x) * gradient).flatten(1)


def _free(target: WhiteBoxTarget, x_adv: Tensor, x: Tensor) -> Tensor:
    """Pixels that may change and have not yet, (n, pixels)."""
    return (x_adv == x).flatten(1) & target.ball.free(x_adv).flatten(1)


def _flipped(x: Tensor, places: Tensor) -> Tensor:
    """x with one pixel of each image turned. places: (n, 1)."""
    flat = x.flatten(1)
    return flat.scatter(1, places, 1 - flat.gather(1, places)).view_as(x)


def _margins(
    target: WhiteBoxTarget, x: Tensor, y: Tensor, aim: Tensor | None, rows: Tensor, draws: int
) -> Tensor:
    """Mean margin over fresh draws, (n,)."""
    if not target.stochastic:
        return margin(target.logits(x, rows), y, aim)
    answers = target.answers(x, draws, rows)
    return torch.stack([margin(one, y, aim) for one in answers]).mean(0)
