"""Fully connected network without biases that sees its pixels centred: FC-ReLU-FC-ReLU-FC of the BF
paper ("Function changes in the backpropagation equation ...").

x_0 = span (2 pixel - 1),  v_l = W_l x_{l-1} + sigma eps,  x_l = phi(v_l);  the logits are the last
v. Without a bias a layer cannot move its inputs, so that they must lie around zero.
"""

from __future__ import annotations

import math
from functools import partial

from pydantic import Field
from torch import Tensor, nn

from robench.networks.base import Network
from robench.networks.mlp import Activation, activation, full_layers, through


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
        self.layers = full_layers(widths, partial(nn.Linear, bias=False), self.sigma, False)
        self.phi = activation(self.activation, self.surrogate)

    def forward(self, x: Tensor) -> Tensor:
        return through(self.layers, self.phi, self.span * (2 * x.flatten(1) - 1))
