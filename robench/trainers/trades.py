"""TRADES (Zhang et al. 2019, arXiv 1901.08573, Eq. 5): accuracy on clean images, and answers that
stay the same within a ball.

    min over theta of E[ CE(f(x), y) + beta max over |d| <= eps of KL(f(x) || f(x + d)) ]

f is what decides the prediction: of a spiking network whose last spikes are read out, the
potentials of its output neurons, since spikes are flat nearly everywhere.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from robench.networks.base import Network
from robench.trainers.base import Trainer, cross_entropy

START = 1e-3
"""Deviation of the normal numbers that the inner maximum starts from: at the image itself the
divergence has no gradient."""


class Trades(Trainer):
    """Cross-entropy, and the divergence between the answers to an image and to its worst
    neighbour."""

    eps: float = Field(default=0.1, gt=0)
    """Radius of the L-infinity ball, pixels in [0, 1]."""
    steps: int = Field(default=7, ge=1)
    step_size: float | None = Field(default=None, gt=0)
    """None: 2.5 eps / steps."""
    beta: float = Field(default=6.0, ge=0)
    """Weight of the divergence; 1 / lambda in the paper."""

    def loss(self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        worst = self._worst(network, x, rng)
        _, clean = network.readings(x)
        _, moved = network.readings(worst)
        return cross_entropy(clean, y) + self.beta * divergence(clean, moved).mean()

    def _worst(self, network: Network, x: Tensor, rng: torch.Generator) -> Tensor:
        step = self.step_size if self.step_size is not None else 2.5 * self.eps / self.steps
        with torch.no_grad():
            clean = network.readings(x)[1]
        moved = (x + START * torch.empty_like(x).normal_(generator=rng)).clamp(0, 1)
        for _ in range(self.steps):
            moved.requires_grad_()
            apart = divergence(clean, network.readings(moved)[1]).sum()
            (grad,) = torch.autograd.grad(apart, moved)
            moved = moved.detach() + step * grad.sign()
            moved = torch.minimum(torch.maximum(moved, x - self.eps), x + self.eps).clamp(0, 1)
        return moved


def divergence(clean: Tensor, moved: Tensor) -> Tensor:
    """KL(softmax(clean) || softmax(moved)) of each row, (n, classes) -> (n,)."""
    log_moved, log_clean = moved.log_softmax(1), clean.log_softmax(1)
    return F.kl_div(log_moved, log_clean, reduction="none", log_target=True).sum(1)
