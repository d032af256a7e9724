"""Networks of two pixels, so small that everything can be tried, and what the exact search says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robench.attacks.ball import Ball
from robench.data.base import Part
from robench.make.scoring import Perturbed, attack_slice
from robench.networks.base import Network
from robench.networks.fc import FC
from robench.networks.mlp import MLP
from robench.networks.snn import SNN
from robench.proofs.exact import Exact
from robench.workspace.cards import AttackCard, Norm

SHAPE, CLASSES, EPS = (1, 1, 2), 3, 0.15
UNITS = ("relu", "abs", "threshold", "sign", "staircase", "sigmoid")


def perceptron(kind: type[MLP] | type[FC], seed: int, **settings: Any) -> Network:
    torch.manual_seed(seed)
    made = kind(SHAPE, CLASSES, **settings)
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(0, 4 if settings["activation"] == "staircase" else 1.5)
        if kind is MLP:  # so that every unit of the first layer switches somewhere in the square
            first = made.layers[0].op
            first.bias[:] = -(first.weight * torch.rand_like(first.weight)).sum(1)
            for layer in made.layers[1:]:  # about the middle of what comes in
                middle = 0.0 if settings["activation"] == "sign" else 0.5
                layer.op.bias[:] = -middle * layer.op.weight.sum(1)
    return made.eval().requires_grad_(False)


def spiking(seed: int, **settings: Any) -> Network:
    torch.manual_seed(seed)
    made = SNN(SHAPE, CLASSES, **settings)
    with torch.no_grad():
        for layer in made.layers:
            layer.op.weight.normal_(0.3, 1.0)
    return made.eval().requires_grad_(False)


def images(network: Network, count: int, seed: int) -> Part:
    x = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return Part(x.numpy(), network(x).argmax(1).numpy())


def settle(
    network: Network, part: Part, eps: float = EPS, norm: Norm = "linf", **settings: Any
) -> Perturbed:
    spec = {"name": "exact"}
    card = AttackCard(
        attack=spec, access="weights", role="proof", norm=norm, eps=eps, name="exact", root=Path()
    )
    attack = Exact(**{"steps": 0, "seconds": 30.0} | settings)
    return attack_slice(
        network, attack, card, eps, part, noisy=False, seed=0, batch_size=100,
        device=torch.device("cpu"),
    )  # fmt: skip


def everywhere(
    network: Network, image: np.ndarray, eps: float, norm: Norm = "linf", points: int = 121
) -> Tensor:
    """The answers of the network on a grid over the ball, its corners included."""
    axes = [
        torch.linspace(float(max(p - eps, 0)), float(min(p + eps, 1)), points)
        for p in image.ravel()
    ]
    grid = torch.cartesian_prod(*axes).view(-1, *SHAPE)
    far = Ball(norm, eps).distance(grid, torch.from_numpy(image)[None])
    return network(grid[far <= eps * (1 + 1e-6)])
