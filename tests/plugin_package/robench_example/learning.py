"""A network and a trainer."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from robench import Network, Trainer


class Linear(Network):
    """One linear layer: the least network there is."""

    bias: bool = True

    def build(self) -> None:
        self.layer = nn.Linear(math.prod(self.input_shape), self.classes, bias=self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


class LabelSmoothing(Trainer):
    """Cross-entropy on smoothed labels (Szegedy et al. 2016)."""

    version = 2
    smoothing: float = Field(default=0.1, ge=0, lt=1)

    def loss(self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        return F.cross_entropy(network(x), y, label_smoothing=self.smoothing)
