"""Backpropagation through the noise of the noisy layers: GLR's control.

It minimises the same expected loss as the likelihood-ratio trainers, E[L] over the noise, by the
pathwise gradient: what a GLR network has and this one lacks is owed to the estimator, the rest to
the noise. Units that jump are differentiated by their surrogate.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.noise import GaussianNoise, noise, noisy_layers
from robench.trainers.base import Trainer, cross_entropy


class BPN(Trainer):
    """Backpropagation with the network's noise switched on while it trains."""

    copies: int = Field(default=1, ge=1)
    """Noisy forward passes per image that the gradient is averaged over. With layer_wise: for each
    layer."""
    layer_wise: bool = False
    """Noise in one layer at a time, whose weights follow the loss under its own noise alone: the
    control of an LR that is layer-wise. What belongs to no noisy layer stays, as under LR."""
    recordable = True
    noisy = True

    def start_epoch(self, network: Network, epoch: int) -> bool:
        if not network.noisy:
            raise RobenchError(
                f"trainer bp-n: network {type(network).__name__} has no noisy layers; use bp"
            )
        return False

    def loss(self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        with noise(network, GaussianNoise(rng)):
            return self._of_copies(network, x, y)

    def gradient(
        self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator
    ) -> float | Tensor:
        if not self.layer_wise:
            return super().gradient(network, x, y, rng)
        layers = noisy_layers(network)
        losses = []
        for layer in layers:
            own = [weight for weight in layer.parameters() if weight.requires_grad]
            with noise(layer, GaussianNoise(rng)):
                loss = self._of_copies(network, x, y)
            for weight, grad in zip(own, torch.autograd.grad(loss, own), strict=True):
                weight.grad = grad
            losses.append(loss.detach())
        return torch.stack(losses).mean()

    def _of_copies(self, network: Network, x: Tensor, y: Tensor) -> Tensor:
        rows = network(x.repeat(self.copies, *[1] * (x.dim() - 1)))
        return cross_entropy(rows, y.repeat(self.copies))
