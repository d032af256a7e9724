"""Flips of binary pixels under a budget: words of a node, or edges of it, as its card says.

A flip turns pixel p into 1 - p. `flips` follows the gradient, greedily (as FGA does on graphs: Chen
et al. 2018, arXiv 1809.02797; Nettack's greedy loop: Zuegner et al. 2018, 1805.07984): a flip is
worth, to first order, (1 - 2p) dL/dp. `random-flips` is the floor that it must beat. eps is the
number of flips.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from robench.attacks.base import Attack
from robench.attacks.losses import LOSSES
from robench.attacks.steps import per_image
from robench.attacks.target import DecisionTarget, WhiteBoxTarget


class Flips(Attack):
    """One flip after another where the gradient promises most, as long as an image stands."""

    loss: Literal["cross-entropy", "margin"] = "margin"
    candidates: int = Field(default=8, ge=1)
    """Flips that are tried at each step, the most promising ones: the best is kept if it helps.
    1: the gradient is believed."""
    eot: int = Field(default=1, ge=1)
    """Draws to average over, where the network is random."""
    targeted: ClassVar[bool] = True
    norms: ClassVar[tuple[str, ...]] = ("l0",)
    randomised: ClassVar[bool] = False

    def perturb(self, target: WhiteBoxTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        budget = math.floor(self.finite_eps(target))
        x_adv, y = x.clone(), target.sought(y)
        draws = self.eot if target.stochastic else 1
        loss = LOSSES[self.loss]
        rows = torch.arange(len(x), device=x.device)
        for _ in range(budget):
            answer = target.gradient(x_adv[rows], y[rows], loss, draws, index=rows)
            standing = answer.fooled < 1
            rows = rows[standing]
            if not len(rows):
                break
            now = x_adv[rows]
            worth = worth_of(now, answer.gradient[standing])
            worth.masked_fill_(~unflipped(target, now, x[rows]), -torch.inf)
            places = worth.topk(min(self.candidates, worth.shape[1]), dim=1)
            gains = places.values  # believed; or, where there is a choice, tried
            if self.candidates > 1:
                tried = self._try(target, now, y[rows], rows, places.indices, draws)
                gains = (tried - answer.loss[standing, None]).masked_fill(gains.isinf(), -torch.inf)
            best = gains.argmax(1, keepdim=True)
            after = flipped(now, places.indices.gather(1, best))
            x_adv[rows] = torch.where(per_image(gains.gather(1, best) > 0, now), after, now)
        return x_adv

    def _try(
        self, target: WhiteBoxTarget, x: Tensor, y: Tensor, rows: Tensor, places: Tensor, draws: int
    ) -> Tensor:
        """The loss after a flip at each of `places`, (n, k)."""
        tried = []
        loss = target.goal.loss(LOSSES[self.loss])
        for place in places.T[..., None]:
            after = flipped(x, place)
            losses = [loss(target.logits(after, rows), y) for _ in range(draws)]
            tried.append(torch.stack(losses).mean(0))
        return torch.stack(tried, dim=1)


def worth_of(x: Tensor, gradient: Tensor) -> Tensor:
    """What each flip promises, (n, pixels)."""
    return ((1 - 2 * x) * gradient).flatten(1)


def unflipped(target: DecisionTarget, x_adv: Tensor, x: Tensor) -> Tensor:
    """Pixels that may change and have not yet, (n, pixels)."""
    return (x_adv == x).flatten(1) & target.ball.free(x_adv).flatten(1)


def flipped(x: Tensor, places: Tensor) -> Tensor:
    """x with one pixel of each image turned. places: (n, 1)."""
    flat = x.flatten(1)
    return flat.scatter(1, places, 1 - flat.gather(1, places)).view_as(x)


class RandomFlips(Attack):
    """eps flips at random places; asks the model nothing."""

    balanced: bool = True
    """Half of the flips, on average, hit pixels that are on: bits are mostly off, and a random one
    would nearly always be switched on."""
    needs: ClassVar[str] = "decision"
    norms: ClassVar[tuple[str, ...]] = ("l0",)

    def perturb(self, target: DecisionTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        budget = math.floor(self.finite_eps(target))
        flat = x.flatten(1)
        free = target.ball.free(x).flatten(1)
        weight = torch.ones_like(flat)
        if self.balanced:
            on = (flat > 0.5) & free
            share = on.sum(1, keepdim=True) / free.sum(1, keepdim=True)
            weight = torch.where(on, 1 - share, share).clamp_min(1e-9)
        # The largest of u^(1/w) are a sample without replacement (Efraimidis & Spirakis 2006).
        key = torch.rand(flat.shape, generator=rng, device=x.device).log() / weight
        key = key.masked_fill(~free, -torch.inf)
        chosen = key.topk(min(budget, flat.shape[1]), dim=1).indices
        return flat.scatter(1, chosen, 1 - flat.gather(1, chosen)).view_as(x)
