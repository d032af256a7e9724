"""How learned sigmas are trained beside the weights: a learning rate of their own, and a clamp."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robench.networks.base import Network
from robench.networks.noise import noisy_layers


def learned_sigmas(network: Network) -> list[Tensor]:
    """The sigmas that are parameters."""
    return [layer.sigma for layer in noisy_layers(network) if layer.sigma.requires_grad]


def with_sigma_lr(network: Network, lr: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: the weights, and the sigmas with learning rate `lr`."""
    sigmas = learned_sigmas(network)
    known = {id(sigma) for sigma in sigmas}
    weights = [p for p in network.parameters() if p.requires_grad and id(p) not in known]
    groups: list[dict[str, Any]] = [{"params": weights}]
    if sigmas:
        groups.append({"params": sigmas, "lr": lr, "weight_decay": 0.0})
    return groups


def clamp_sigmas(network: Network, low: float, high: float) -> None:
    """Keep the sigmas in a range; without a floor an output layer's collapses."""
    with torch.no_grad():
        for sigma in learned_sigmas(network):
            sigma.clamp_(low, high)
