"""Backpropagation: autograd and an optimiser. The baseline of every comparison."""

from __future__ import annotations

import torch
from torch import Tensor

from robench.networks.base import Network
from robench.trainers.base import Trainer, cross_entropy


class BP(Trainer):
    """Cross-entropy by backpropagation."""

    mean_of_rows = True
    recordable = True

    def loss(self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        return cross_entropy(network(x), y)
