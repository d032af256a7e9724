"""Multi-layer perceptron whose every layer can carry noise (GLR section 2, PLR).

v_l = W_l x_l + b_l + sigma eps,  x_{l+1} = phi(v_l);  the logits are the last v.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from robench.networks.base import Network
from robench.networks.linear import Linear
from robench.networks.noise import NoisyLayer
from robench.networks.surrogate import Step

Activation = Literal["relu", "sigmoid", "threshold", "abs"]


class Abs(nn.Module):
    """y = |v|, one of GLR's activations."""

    def forward(self, v: Tensor) -> Tensor:
        return v.abs()


def activation(name: Activation, surrogate: str) -> nn.Module:
    match name:
        case "relu":
            return nn.ReLU()
        case "sigmoid":
            return nn.Sigmoid()
        case "abs":
            return Abs()
        case "threshold":
            return Step(surrogate)


class MLP(Network):
    """Fully connected network with relu, sigmoid, threshold or abs units."""

    hidden: tuple[int, ...] = (64,)
    activation: Activation = "relu"
    sigma: float = 1.0
    """Standard deviation of the noise in every layer, where a trainer or model card turns it on."""
    learned_sigma: bool = False
    weights: Literal["uniform", "normal"] = "uniform"
    """uniform: U(+-1/sqrt(fan_in)), torch's default; normal: 0.1 N(0, 1), GLR's."""
    surrogate: str = "sigmoid:0.25"
    """Derivative that stands in for the threshold's, for attacks and for bp."""

    def build(self) -> None:
        widths = [math.prod(self.input_shape), *self.hidden, self.classes]
        self.layers = nn.ModuleList(
            NoisyLayer(Linear(a, b), (b,), self.sigma, self.learned_sigma)
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.phi = activation(self.activation, self.surrogate)
        if self.weights == "normal":
            with torch.no_grad():
                for parameter in self.layers.parameters():
                    if parameter.dim() == 2:
                        parameter.normal_(0, 0.1)
                for layer in self.layers:
                    layer.op.bias.normal_(0, 0.1)  # type: ignore[union-attr, operator]

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        *hidden, last = self.layers
        for layer in hidden:
            x = self.phi(layer(x))
        logits: Tensor = last(x)
        return logits
