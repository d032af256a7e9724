"""Adversarial training by PGD (Madry et al. 2018, Eq. 2.1): the reference for every defense.

min over theta of E[ max over |d| <= eps of L(theta, x + d, y) ], the inner maximum by a few signed
steps.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from robench.networks.base import Network
from robench.trainers.base import Trainer, cross_entropy


class Adversarial(Trainer):
    """Cross-entropy on the worst images that PGD finds in an L-infinity ball."""

    eps: float = Field(default=0.1, gt=0)
    """Radius of the ball, pixels in [0, 1]."""
    steps: int = Field(default=7, ge=1)
    step_size: float | None = Field(default=None, gt=0)
    """None: 2.5 eps / steps."""

    def loss(self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        return cross_entropy(network(self._worst(network, x, y, rng)), y)

    def _worst(self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        step = self.step_size if self.step_size is not None else 2.5 * self.eps / self.steps
        delta = torch.empty_like(x).uniform_(-self.eps, self.eps, generator=rng)
        for _ in range(self.steps):
            x_adv = (x + delta).clamp(0, 1).requires_grad_()
            (grad,) = torch.autograd.grad(cross_entropy(network(x_adv), y), x_adv)
            delta = (delta + step * grad.sign()).clamp(-self.eps, self.eps)
        return (x + delta).clamp(0, 1).detach()
