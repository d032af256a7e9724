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
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robench.attacks.base import Attack
from robench.attacks.contest import ROUNDING, Best, judge, rank
from robench.attacks.flips import flipped, unflipped, worth_of
from robench.attacks.losses import margin
from robench.attacks.steps import per_image
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
        budget, draws = math.floor(self.finite_eps(target)), DRAWS if target.stochastic else 1
        search = _Search(self, target, x, y, Best(x), budget, draws)
        search.enter(x, torch.arange(len(x), device=x.device))
        if budget:
            rivals = target.rivals(x, y, self.targets)
            search.greedy(None, None)
            for aim in (None, *rivals):
                for derivative in DERIVATIVES if target.jumps else ():
                    search.greedy(aim, derivative)
                if aim is not None and not target.jumps:
                    search.greedy(aim, None)
            for _ in range(self.swaps):
                search.swap()
        return search.best.images


@dataclass(frozen=True)
class _Search:
    """The images of a batch, with `budget` flips each."""

    attack: EventFlips
    target: WhiteBoxTarget
    x: Tensor
    y: Tensor
    best: Best
    budget: int
    draws: int

    def greedy(self, aim: Tensor | None, derivative: str | None) -> None:
        """One flip after the other. derivative: None: the network's own, through its output."""
        rows = self.best.standing()
        adaptive = None if derivative is None else AdaptiveSurrogate(derivative, len(rows))
        x_adv = self.x[rows].clone()
        for _ in range(self.budget):
            if not len(rows):
                return
            aimed = None if aim is None else aim[rows]
            answer = self.target.gradient(
                x_adv, self.y[rows], margin, self.draws, adaptive, rows, aim=aimed,
                on="output" if adaptive is None else "potential",
                through_reset=adaptive is None,
            )  # fmt: skip
            worth = worth_of(x_adv, answer.gradient)
            worth.masked_fill_(~unflipped(self.target, x_adv, self.x[rows]), -torch.inf)
            places = worth.topk(min(self.attack.candidates, worth.shape[1]), dim=1).indices
            tried = [
                self._margins(flipped(x_adv, place), rows, aimed) for place in places.T[..., None]
            ]
            chosen = places.gather(1, torch.stack(tried, 1).argmax(1, keepdim=True))
            x_adv = flipped(x_adv, chosen)
            self.enter(x_adv, rows)
            left = torch.nonzero(~self.best.broken[rows])[:, 0]
            if len(left) < len(rows):
                rows, x_adv = rows[left], x_adv[left]
                if adaptive is not None:
                    adaptive.keep(left)

    def swap(self) -> None:
        """For every image that stands: of some flips taken back and some made in their place, the
        pair that does most, where it does more than what there is."""
        rows = self.best.standing()
        if not len(rows):
            return
        now, clean = self.best.images[rows], self.x[rows]
        derivative = AdaptiveSurrogate(DERIVATIVES[0], len(rows))
        answer = self.target.gradient(
            now, self.y[rows], margin, self.draws, derivative, rows, on="potential",
            through_reset=False,
        )  # fmt: skip
        worth, spent = worth_of(now, answer.gradient), (now != clean).flatten(1)
        made = worth.masked_fill(~unflipped(self.target, now, clean), -torch.inf)
        back = worth.masked_fill(~spent, -torch.inf)
        for undone in back.topk(min(BACK, self.budget), dim=1).indices.T:
            # Where there are flips left, nothing is taken back.
            none_left = per_image(spent.sum(1) >= self.budget, now)
            fewer = torch.where(none_left, flipped(now, undone[:, None]), now)
            for place in made.topk(min(self.attack.candidates, made.shape[1]), dim=1).indices.T:
                self.enter(flipped(fewer, place[:, None]), rows)

    def enter(self, x_adv: Tensor, rows: Tensor) -> None:
        """Let images compete with the best ones."""
        share, gap = judge(self.target, x_adv, self.y[rows], self.draws, rows)
        self.best.enter(rows, x_adv, rank(gap, share if self.target.stochastic else None))
        if not self.target.stochastic:
            self.best.broken[rows[gap > ROUNDING]] = True

    def _margins(self, x: Tensor, rows: Tensor, aim: Tensor | None) -> Tensor:
        """Mean margin over fresh draws, (n,)."""
        if not self.target.stochastic:
            return margin(self.target.logits(x, rows), self.y[rows], aim)
        answers = self.target.answers(x, self.draws, rows)
        return torch.stack([margin(one, self.y[rows], aim) for one in answers]).mean(0)
