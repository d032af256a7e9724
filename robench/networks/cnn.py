"""Convolutional network whose every layer can carry noise.

Blocks of convolution, noise, activation and pooling, then fully connected layers as in mlp.py:
v_l = W_l * x_l + b_l + sigma eps,  x_{l+1} = pool(phi(v_l));  the logits are the last v.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.mlp import Activation, activation
from robench.networks.noise import NoisyLayer


class CNN(Network):
    """Small convolutional network: 3x3 convolutions, each halving the image, then full layers."""

    channels: tuple[int, ...] = Field(default=(16, 32, 64), min_length=1)
    """Output channels of the convolutions."""
    hidden: tuple[int, ...] = (128,)
    """Widths of the fully connected layers before the logits."""
    kernel: Literal[1, 3, 5, 7] = 3
    pool: Literal["max", "average"] = "max"
    """How each block halves the image: over 2x2 pixels."""
    activation: Activation = "relu"
    sigma: float = Field(default=1.0, ge=0)
    """Standard deviation of the noise in every layer, where a trainer or model card turns it on."""
    learned_sigma: bool = False
    surrogate: str = "sigmoid:0.25"
    """Derivative that stands in for the threshold's, for attacks and for bp."""

    def build(self) -> None:
        before, height, width = self.input_shape
        halvings = len(self.channels)
        if min(height, width) >> halvings == 0:
            raise RobenchError(
                f"network cnn: channels = {list(self.channels)}: {halvings} halvings leave nothing "
                f"of a {height}x{width} image; list fewer"
            )
        blocks = []
        for after in self.channels:
            op = nn.Conv2d(before, after, self.kernel, padding=self.kernel // 2)
            blocks.append(NoisyLayer(op, (after, 1, 1), self.sigma, self.learned_sigma))
            before = after
        self.convolutions = nn.ModuleList(blocks)
        widths = [before * (height >> halvings) * (width >> halvings), *self.hidden, self.classes]
        self.layers = nn.ModuleList(
            NoisyLayer(nn.Linear(a, b), (b,), self.sigma, self.learned_sigma)
            for a, b in pairwise(widths)
        )
        self.phi = activation(self.activation, self.surrogate)
        self.halve = nn.MaxPool2d(2) if self.pool == "max" else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        for convolution in self.convolutions:
            x = self.halve(self.phi(convolution(x)))
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = self.phi(layer(x))
        logits: Tensor = self.layers[-1](x)
        return logits
