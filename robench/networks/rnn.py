"""Recurrent networks over an image's rows, every pre-activation of which can carry noise.

At each step the cell sees the next rows of the image, x_t, and its own state h:

    rnn    h <- tanh(v),                      v = W [x_t, h] + b + sigma eps
    gru    r, z = sigmoid(v),                 v = W [x_t, h] + b + sigma eps
           h <- z h + (1 - z) tanh(v'),      v' = W' [x_t, r h] + b' + sigma' eps'
    lstm   i, f, o = sigmoid(v_ifo),          v = W [x_t, h] + b + sigma eps
           c <- f c + i tanh(v_g),   h <- o tanh(c)

The logits are a noisy linear layer of the last h. Elman 1990; Cho et al. 2014 (arXiv 1406.1078);
Hochreiter & Schmidhuber 1997. State starts at zero at every call.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.linear import Linear
from robench.networks.noise import NoisyLayer


class RNN(Network):
    """Recurrent network (plain, GRU or LSTM) that reads an image some rows at a time."""

    recordable = True

    shares_input: ClassVar[bool] = False

    cell: Literal["rnn", "gru", "lstm"] = "gru"
    hidden: int = Field(default=64, ge=1)
    rows: int = Field(default=1, ge=1)
    """Rows of the image that one step reads."""
    sigma: float = Field(default=1.0, ge=0)
    """Standard deviation of the noise in every layer, where a trainer or model card turns it on."""
    learned_sigma: bool = False

    def build(self) -> None:
        channels, height, width = self.input_shape
        if height % self.rows:
            raise RobenchError(
                f"network rnn: rows = {self.rows}: an image of {height} rows cannot be read "
                "so many at a time; use a divisor"
            )
        inputs = channels * self.rows * width + self.hidden
        gates = {"rnn": 1, "gru": 2, "lstm": 4}[self.cell] * self.hidden
        self.gates = self._noisy(inputs, gates)
        if self.cell == "gru":
            self.candidate = self._noisy(inputs, self.hidden)
        if self.cell == "lstm":
            bias = self.gates.op.get_parameter("bias")
            with torch.no_grad():  # a new cell remembers (Gers et al. 2000)
                bias[self.hidden : 2 * self.hidden] = 1.0
        self.last = self._noisy(self.hidden, self.classes)
        self.sigmoid, self.tanh = nn.Sigmoid(), nn.Tanh()

    def _noisy(self, inputs: int, outputs: int) -> NoisyLayer:
        return NoisyLayer(Linear(inputs, outputs), (outputs,), self.sigma, self.learned_sigma)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), self.hidden)
        c = torch.zeros_like(h)
        for step in x.split(self.rows, dim=2):  # type: ignore[no-untyped-call]
            seen = step.flatten(1)
            v = self.gates(torch.cat([seen, h], dim=1))
            if self.cell == "rnn":
                h = self.tanh(v)
            elif self.cell == "gru":
                reset, keep = self.sigmoid(v).chunk(2, dim=1)
                new = self.candidate(torch.cat([seen, reset * h], dim=1))
                h = keep * h + (1 - keep) * self.tanh(new)
            else:
                enter, stay, leave = self.sigmoid(v[:, : 3 * self.hidden]).chunk(3, dim=1)
                c = stay * c + enter * self.tanh(v[:, 3 * self.hidden :])
                h = leave * self.tanh(c)
        logits: Tensor = self.last(h)
        return logits
