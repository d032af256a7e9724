"""Multi-layer perceptron whose every layer can carry noise (GLR section 2, PLR).

v_l = W_l x_l + b_l + sigma eps,  x_{l+1} = phi(v_l);  the logits are the last v.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from robench.networks.base import Network
from robench.networks.linear import Linear
from robench.networks.noise import NoisyLayer
from robench.networks.surrogate import Step

Activation = Literal["relu", "sigmoid", "threshold", "abs", "sign", "staircase", "tanh", "elu"]

JUMP_AT_ZERO = ("threshold", "sign")
"""Activations of which v says no more than whether it is above 0."""


class Abs(nn.Module):
    """y = |v|, one of GLR's activations."""

    def forward(self, v: Tensor) -> Tensor:
        return v.abs()


class Sign(Step):
    """y = 1 where v > 0, else -1: a threshold that is never silent."""

    def forward(self, v: Tensor) -> Tensor:
        return 2 * super().forward(v) - 1


class Staircase(Step):
    """Four levels, 0, 1/3, 2/3 and 1, with jumps at v = -2, 0 and 2: a coarsely quantised sigmoid.

    Its surrogate derivative is the mean of those of the three jumps.
    """

    def forward(self, v: Tensor) -> Tensor:
        low, middle, high = (Step.forward(self, v - jump) for jump in (-2.0, 0.0, 2.0))
        return (low + middle + high) / 3


def activation(name: Activation, surrogate: str) -> nn.Module:
    """The activation `name`; those that jump get `surrogate` for their derivative."""
    match name:
        case "relu":
            return nn.ReLU()
        case "tanh":
            return nn.Tanh()
        case "elu":
            return nn.ELU()
        case "sigmoid":
            return nn.Sigmoid()
        case "abs":
            return Abs()
        case "threshold":
            return Step(surrogate)
        case "sign":
            return Sign(surrogate)
        case "staircase":
            return Staircase(surrogate)


def full_layers(
    widths: Sequence[int], make: Callable[[int, int], nn.Module], sigma: float, learned: bool
) -> nn.ModuleList:
    """Fully connected layers, each with noise of its own. make: inputs, outputs -> a layer."""
    return nn.ModuleList(NoisyLayer(make(a, b), (b,), sigma, learned) for a, b in pairwise(widths))


def through(layers: nn.ModuleList, phi: nn.Module, x: Tensor, jumps: bool = False) -> Tensor:
    """The logits: what the last of some layers answers, with phi after every other. jumps: whether
    the layers are told that phi says no more of v than whether it is above 0."""
    *hidden, last = layers
    for layer in hidden:
        x = activated(layer, layer(x), phi, jumps)
    logits: Tensor = last(x)
    return logits


def activated(layer: nn.Module, v: Tensor, phi: nn.Module, jumps: bool) -> Tensor:
    """phi(v), v being what a noisy layer answers; see `through`."""
    if jumps:
        cast(NoisyLayer, layer).fired(v, 0.0)
    x: Tensor = phi(v)
    return x


class MLP(Network):
    """Fully connected network with relu, sigmoid, threshold, abs, sign or staircase units."""

    recordable = True

    hidden: tuple[int, ...] = (64,)
    activation: Activation = "relu"
    sigma: float = 1.0
    """Standard deviation of the noise in every layer, where a trainer or model card turns it on."""
    learned_sigma: bool = False
    weights: Literal["uniform", "normal"] = "uniform"
    """uniform: U(+-1/sqrt(fan_in)), torch's default; normal: 0.1 N(0, 1), GLR's."""
    surrogate: str = "sigmoid:0.25"
    """Derivative that stands in for that of a jump, for attacks and for bp."""

    def build(self) -> None:
        widths = [math.prod(self.input_shape), *self.hidden, self.classes]
        self.layers = full_layers(widths, Linear, self.sigma, self.learned_sigma)
        self.phi = activation(self.activation, self.surrogate)
        if self.weights == "normal":
            with torch.no_grad():
                for module in self.layers.modules():
                    if isinstance(module, Linear):
                        module.weight.normal_(0, 0.1)
                        module.bias.normal_(0, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return through(self.layers, self.phi, x.flatten(1), self.activation in JUMP_AT_ZERO)
