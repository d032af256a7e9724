"""A problem with two weights, whose optimisers can be watched: two clouds of points, one neuron."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from robench import Dataset, Network
from robench.data.base import Raw
from robench.networks.noise import NoisyLayer


class Clouds(Dataset):
    """40 points of two Gaussian clouds in the unit square, as images of 1x2 pixels."""

    split: str = "6:1:3"

    def raw(self) -> Raw:
        rng = np.random.default_rng(0)
        labels = np.arange(40) % 2
        centres = np.where(labels[:, None] == 1, 1, -1) * np.array([0.35, 0.15])
        points = np.clip(centres + rng.normal(0, (0.3, 0.6), (40, 2)), -1, 1)
        images = ((points + 1) / 2).astype(np.float32).reshape(-1, 1, 1, 2)
        return Raw(images, labels.astype(np.int64), official_train=0)

    def class_names(self) -> tuple[str, ...]:
        return ("left", "right")


class Plane(Network):
    """One noisy neuron, v = w x + sigma eps, on points in [-1, 1]^2; the logits are 0 and v."""

    sigma: float = 0.5
    start: tuple[float, float] = (-3.0, 3.0)
    """Where the two weights start."""

    def build(self) -> None:
        op = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            op.weight.copy_(torch.tensor([self.start], device=op.weight.device))
        self.neuron = NoisyLayer(op, (1,), self.sigma)

    def forward(self, x: Tensor) -> Tensor:
        v: Tensor = self.neuron(2 * x.flatten(1) - 1)
        return torch.cat([torch.zeros_like(v), v], dim=1)
