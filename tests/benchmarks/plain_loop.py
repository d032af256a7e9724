"""What no PGD of 15 steps can avoid: the floor of the attacks' benchmarks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from robench.networks.base import Network

EPS, STEPS, STEP = 0.1, 15, 0.01


def floor(network: Network, x: Tensor, y: Tensor) -> Tensor:
    low, high = (x - EPS).clamp(0, 1), (x + EPS).clamp(0, 1)
    for _ in range(STEPS):
        leaf = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(network(leaf), y, reduction="sum"), leaf)
        x = torch.add(leaf.detach(), grad.sign_(), alpha=STEP).clamp_(low, high)
    return x
