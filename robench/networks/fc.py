"""Fully connected network without biases that sees its pixels centred: FC-ReLU-FC-ReLU-FC of the BF
paper ("Function changes in the backpropagation equation ...").

x_0 = span (2 pixel - 1),  v_l = W_l x_{l-1} + sigma eps,  x_l = phi(v_l);  the logits are the last
v. Without a bias a layer cannot move its inputs, so that they must lie around zero.
"""

from __future__ import annotations

import math
from itertools import pairwise

from pydantic import Field
from torch import Tensor, nn

from robench.networks.base import Network
from robench.networks.mlp import Activation, activation
from robench.networks.noise import NoisyLayer


class FC(Network):
    """Fully connected network without biases, for small experiments."""

    recordable = True

    hidden: tuple[int, ...] = (2, 2)
    activation: Activation = "relu"
    span: float = Field(default=1.0, gt=0)
    """Pixels 0 and 1 become -span and span."""
    sigma: float = Field(default=1.0, ge=0)
    """Standard deviation of the noise in every layer, where a trainer or model card turns it on."""
    surrogate: str = "sigmoid:0.25"
    """Derivative that stands in for that of a jump, for attacks and for bp."""

    def build(self) -> None:
        widths = [math.prod(self.input_shape), *self.hidden, self.classes]
        self.layers = nn.ModuleList(
            NoisyLayer(nn.Linear(a, b, bias=False), (b,), self.sigma) for a, b in pairwise(widths)
        )
        self.phi = activation(self.activation, self.surrogate)

    def forward(self, x: Tensor) -> Tensor:
        x = self.span * (2 * x.flatten(1) - 1)
        *hidden, last = self.layers
        for layer in hidden:
            x = self.phi(layer(x))
        logits: Tensor = last(x)
        return logits
