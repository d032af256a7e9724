"""SNN-RAT: regularised adversarial training of spiking networks (Ding, Bu, Yu, Huang, Liu; NeurIPS
2022).

Every batch is attacked by one of two single steps, drawn by chance: FGSM, or a random step of half
the radius first. After each step of the optimiser the weights W of every layer, a row for each
neuron, are drawn towards orthogonal rows, which bounds how much a layer can amplify a perturbation
of its spikes (Parseval's tightness, Cisse et al. 2017, arXiv 1704.08847):

    W <- (1 + beta) W - beta W W^T W

The published attack takes its gradients through spike rates; here they go through time and the
network's surrogate derivative.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from robench.networks.base import Network
from robench.trainers.base import Trainer, cross_entropy


class SNNRAT(Trainer):
    """Single-step adversarial training with weights that are kept nearly orthogonal."""

    eps: float = Field(default=0.1, gt=0)
    """Radius of the L-infinity ball, pixels in [0, 1]."""
    beta: float = Field(default=0.004, ge=0)
    """How far the rows are drawn towards orthogonal ones after each step."""

    def loss(self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        return cross_entropy(network(self._attacked(network, x, y, rng)), y)

    def _attacked(self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        start, reach = x, self.eps
        if float(torch.rand((), generator=rng, device=x.device)) < 0.5:
            reach = self.eps / 2
            signs = torch.empty_like(x).normal_(generator=rng).sign_()
            start = (x + reach * signs).clamp(0, 1)
        leaf = start.detach().requires_grad_()
        (grad,) = torch.autograd.grad(cross_entropy(network(leaf), y), leaf)
        return (start + reach * grad.sign()).clamp(0, 1).detach()

    def after_step(self, network: Network) -> None:
        with torch.no_grad():
            for layer in network.modules():
                if isinstance(layer, (nn.Linear, nn.Conv2d)):
                    rows = layer.weight.flatten(1)
                    layer.weight.copy_(retracted(rows, self.beta).view_as(layer.weight))


def retracted(rows: Tensor, beta: float) -> Tensor:
    """A step of size beta down the gradient of |W W^T - I|^2 / 4."""
    return (1 + beta) * rows - beta * (rows @ rows.T) @ rows
