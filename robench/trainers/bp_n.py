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
from robench.networks.noise import GaussianNoise, noise
from robench.trainers.base import Trainer, cross_entropy


class BPN(Trainer):
    """Backpropagation with the network's noise switched on while it trains."""

    copies: int = Field(default=1, ge=1)
    """Noisy forward passes per image that the gradient is averaged over."""
    recordable = True

    def loss(self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        if not network.noisy:
            raise RobenchError(
                f"trainer bp-n: network {type(network).__name__} has no noisy layers; use bp"
            )
        with noise(network, GaussianNoise(rng)):
            rows = network(x.repeat(self.copies, *[1] * (x.dim() - 1)))
        return cross_entropy(rows, y.repeat(self.copies))
