"""The likelihood-ratio update that benchmarks time: its network and its images."""

from __future__ import annotations

import torch
from torch import Tensor

from robench.networks.mlp import MLP

COPIES, IMAGES = 10_000, 25


def glr_network() -> MLP:
    torch.manual_seed(0)
    return MLP((1, 14, 14), 10, hidden=(20,), activation="sigmoid", sigma=2.0, weights="normal")


def batch() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.rand(IMAGES, 1, 14, 14, generator=rng), torch.arange(IMAGES) % 10
