"""NAttack: a search distribution over perturbations, moved by scores alone (Li et al. 2019, ICML,
arXiv 1905.00441, Algorithm 1).

A Gaussian N(mu, sigma^2) over perturbations follows the natural-evolution gradient of the expected
reward, with rewards z-scored over the population:  mu <- mu + lr / (N sigma) sum_i A_i z_i.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from robench.attacks.base import Attack
from robench.attacks.contest import ROUNDING
from robench.attacks.sequential import confirmed
from robench.attacks.target import ScoreTarget
from robench.errors import RobenchError


class NAttack(Attack):
    """Evolution strategy on scores, in tanh space as published or in image space."""

    iterations: int = Field(default=500, ge=1)
    population: int = Field(default=300, ge=2)
    """N, perturbations drawn in each iteration; one more query asks about their mean."""
    sigma: float = Field(default=0.1, gt=0)
    """Standard deviation of the population: in tanh space, or in units of eps in image space."""
    lr: float = Field(default=0.02, gt=0)
    """Step size of mu, in the same units as sigma."""
    space: Literal["tanh", "image"] = "tanh"
    """tanh: as published; a pixel at exactly 0 or 1 cannot move there, so black backgrounds stay.
    image: perturbs pixels as they are, the stronger attack on such images."""
    reward: Literal["hinge", "margin"] = "hinge"
    """hinge: the margin up to 0, as published; margin: beyond it too."""
    antithetic: bool = False
    """Draw half of the population and add its mirror image."""
    chunk_rows: int = Field(default=512, ge=1)
    """Perturbed images held in memory at a time; changes nothing but rounding."""
    needs: ClassVar[str] = "score"
    targeted: ClassVar[bool] = True
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    paper: ClassVar[str] = "Li et al. 2019, arXiv 1905.00441"

    def perturb(self, target: ScoreTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        if self.antithetic and self.population % 2:
            raise RobenchError(f"population = {self.population}: antithetic pairs need an even one")
        if self.finite_eps(target) == 0:
            return x
        found, y = x.clone(), target.sought(y)
        index = torch.arange(len(x), device=x.device)
        search = _Search(self, target, x)
        for _ in range(self.iterations):
            if not target.affords(self.population + 1):
                break
            search.move(y[index], index, rng)
            means = search.means()
            found.index_copy_(0, index, means)
            fooled = target.gap(target.logits(means, index), y[index]) > ROUNDING
            if target.stochastic and bool(fooled.any()):
                rows = torch.nonzero(fooled)[:, 0]
                fooled[rows] = confirmed(target, means[rows], y[index[rows]], index[rows])
            if bool(fooled.any()):
                stay = torch.nonzero(~fooled)[:, 0]
                index = index[stay]
                search.keep(stay)
                if not len(index):
                    break
        return found


class _Search:
    """The search distributions of the images that are not broken yet."""

    def __init__(self, attack: NAttack, target: ScoreTarget, x: Tensor) -> None:
        self.attack = attack
        self.target = target
        self.x = x
        self.mu = torch.zeros_like(x)
        self.tanh = attack.space == "tanh"
        self.sigma = attack.sigma * (1.0 if self.tanh else target.eps)
        self.lr = attack.lr * (1.0 if self.tanh else target.eps)
        self.started = False

    def move(self, y: Tensor, index: Tensor, rng: torch.Generator) -> None:
        """One iteration for all images. y, index: of the images still here."""
        attack, shape = self.attack, self.mu.shape[1:]
        if self.tanh and not self.started:
            # One draw serves all images, here and below: each image's search is the published one,
            # does not depend on its neighbours, and drawing costs next to nothing.
            self.mu += 0.001 * torch.randn(shape, generator=rng, device=y.device)
        self.started = True
        drawn = attack.population // 2 if attack.antithetic else attack.population
        z = torch.randn(drawn, *shape, generator=rng, device=y.device)
        if attack.antithetic:
            z = torch.cat([z, -z])
        size = max(1, attack.chunk_rows // len(z))
        groups = [slice(start, start + size) for start in range(0, len(y), size)]
        rewards = torch.cat([self._rewards(z, rows, y[rows], index[rows]) for rows in groups])
        spread, mean = torch.std_mean(rewards, dim=1, keepdim=True, correction=0)
        scored = (rewards - mean) / (spread + 1e-7)
        step = (scored @ z.flatten(1)).view_as(self.mu)
        self.mu += self.lr / (len(z) * attack.sigma) * step
        if not self.tanh:
            self.mu = self.target.project(self.x + self.mu, self.x) - self.x

    def means(self) -> Tensor:
        """The images at the middle of each distribution, inside the budget."""
        none = torch.zeros(1, *self.mu.shape[1:], device=self.mu.device)
        return self._shown(none, slice(None)).flatten(0, 1)

    def keep(self, rows: Tensor) -> None:
        """Drop all images but those in `rows`."""
        self.x, self.mu = self.x[rows], self.mu[rows]

    def _shown(self, z: Tensor, rows: slice) -> Tensor:
        """What the network is shown, (images, population, c, h, w). z: (population, c, h, w)."""
        x, mu = self.x[rows], self.mu[rows]
        if self.tanh:
            # (tanh(atanh(2x - 1) + mu + s z) + 1) / 2 = sigmoid(logit(x) + 2 (mu + s z)), where the
            # paper shrinks 2x - 1 by 1e-6 lest exact 0 and 1 become infinite.
            middle = torch.logit((x - 0.5) * (1 - 1e-6) + 0.5) + 2 * mu
            shown = torch.add(middle[:, None], z, alpha=2 * self.sigma).sigmoid_()
        else:
            shown = torch.add((x + mu)[:, None], z, alpha=self.sigma)
        if self.target.norm == "linf":
            low, high = self.target.ball.bounds(x)
            return shown.clamp_(low[:, None], high[:, None])
        clean = x.repeat_interleave(len(z), dim=0)
        return self.target.project(shown.flatten(0, 1), clean).view_as(shown)

    def _rewards(self, z: Tensor, rows: slice, y: Tensor, index: Tensor) -> Tensor:
        """(images in rows, population)."""
        parts = []
        for part in z.split(self.attack.chunk_rows):  # type: ignore[no-untyped-call]
            shown = self._shown(part, rows).flatten(0, 1)
            logits = self.target.logits(shown, index.repeat_interleave(len(part)))
            gap = self.target.gap(logits, y.repeat_interleave(len(part)))
            parts.append(gap.view(len(y), len(part)))
        gaps = torch.cat(parts, dim=1)
        return gaps.clamp_max(0) if self.attack.reward == "hinge" else gaps
