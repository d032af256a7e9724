"""A small CNN and a 784-50-10 network trained on MNIST, and 500 test images, for comparisons."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robench.data.mnist import MNIST
from robench.networks.base import Network
from robench.networks.mlp import MLP


class SmallCNN(Network):
    """Two strided convolutions and two linear layers."""

    recordable = True

    def build(self) -> None:
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 5, 2, 2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 5, 2, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 49, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


TRAINED = 16_000
"""Images that they are trained on: enough for nineteen in twenty."""


@lru_cache(maxsize=1)
def trained() -> tuple[dict[str, Network], Tensor, Tensor]:
    """{"cnn": ..., "mlp": ...} in evaluation mode, 500 test images and their labels."""
    data = MNIST().load()
    x, y = (torch.from_numpy(t[:TRAINED]) for t in (data.train.images, data.train.labels))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks: dict[str, Network] = {
            "cnn": SmallCNN((1, 28, 28), 10),
            "mlp": MLP((1, 28, 28), 10, hidden=(50,)),
        }
        for network, epochs in zip(networks.values(), (1, 4), strict=True):
            optimizer = torch.optim.Adam(network.parameters(), 3e-3)
            for _ in range(epochs):
                for batch in torch.randperm(len(x)).split(128):
                    optimizer.zero_grad()
                    F.cross_entropy(network(x[batch]), y[batch]).backward()
                    optimizer.step()
            optimizer.zero_grad()
            network.eval().requires_grad_(False)
    test = data.test
    return networks, torch.from_numpy(test.images[:500]), torch.from_numpy(test.labels[:500])
