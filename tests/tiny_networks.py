"""What gradients of noise are tried on: small networks with their weights shaken, a batch of noise,
and many independent estimates of its gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from robench.networks.base import Network
from robench.networks.losses import cross_entropy_rows
from robench.networks.noise import noisy_layers
from robench.trainers.feedback import Feedback
from robench.trainers.likelihood_ratio import LikelihoodRatio, Loss

SHAPE, CLASSES, IMAGES = (1, 4, 4), 3, 6
NOISY: dict[str, Any] = {"sigma": 0.6, "learned_sigma": True}


def shaken(make: Callable[[], Network], by: float) -> Network:
    """The network, with weights that are larger than those that training begins with."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make()
        with torch.no_grad():
            for layer in noisy_layers(network):
                for weight in layer.op.parameters():
                    weight.add_(by * torch.randn_like(weight))
    return network


def batch() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.rand(IMAGES, *SHAPE, generator=rng), torch.arange(IMAGES) % CLASSES


def gradient(network: Network) -> Tensor:
    """Of all parameters in a row; it is taken off the network."""
    parts = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    network.zero_grad(set_to_none=True)
    return torch.cat(parts)


def estimates(
    network: Network,
    count: int,
    loss: Loss = cross_entropy_rows,
    feedback: Feedback | None = None,
    **settings: Any,
) -> Tensor:
    """Independent estimates, (count, parameters), none of which teaches the next."""
    ours, rows = LikelihoodRatio(**{"copies": 8, **settings}), []
    for seed in range(count):
        rng = torch.Generator().manual_seed(1000 + seed)
        ours.backward(network, *batch(), loss, rng, copy.deepcopy(feedback))
        rows.append(gradient(network))
    return torch.stack(rows)
