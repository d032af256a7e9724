"""Spiking network of leaky integrate-and-fire neurons (NIT Eq. 7).

u[t+1] = k u[t] (1 - s[t]) + W x[t+1] + sigma eps,   s = 1{u > Vth}

The reset applies to the previous potential only. State starts at zero at every call.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from robench.networks.base import Network
from robench.networks.noise import NoisyLayer, noisy_layers
from robench.networks.surrogate import Step


class SNN(Network):
    """Fully connected spiking network (leaky integrate-and-fire)."""

    hidden: tuple[int, ...] = (50,)
    steps: int = 5
    """Time steps T."""
    decay: float = 0.2
    """k, the share of the potential that survives one step."""
    threshold: float = 0.5
    """Vth."""
    encoding: Literal["direct", "bernoulli"] = "direct"
    """direct: the image is a constant current; bernoulli: a pixel spikes with its value as rate."""
    readout: Literal["last", "rate", "membrane"] = "last"
    """last: spikes of the last step; rate: mean of the spikes over the steps; membrane: potential
    of the output neurons at the last step, which never ties."""
    sigma: float = 1.0
    """Initial standard deviation of the membrane noise, where a trainer or model card turns it
    on."""
    learned_sigma: bool = True
    surrogate: str = "rectangle:0.5"

    def build(self) -> None:
        widths = [math.prod(self.input_shape), *self.hidden, self.classes]
        self.layers = nn.ModuleList(
            NoisyLayer(nn.Linear(a, b, bias=False), (b,), self.sigma, self.learned_sigma)
            for a, b in pairwise(widths)
        )
        self.spike = Step(self.surrogate, at=self.threshold)

    @property
    def random_input(self) -> bool:
        return self.encoding == "bernoulli"

    def activity(self, x: Tensor) -> dict[str, float]:
        """Mean spikes per neuron and step of every layer, "spike_rate_1", ..."""
        rates: list[float] = []
        hook = self.spike.register_forward_hook(
            lambda module, inputs, spikes: rates.append(float(spikes.detach().mean()))
        )
        try:
            self(x)
        finally:
            hook.remove()
        layers = len(self.layers)
        return {
            f"spike_rate_{layer + 1}": sum(rates[layer::layers]) / self.steps
            for layer in range(layers)
        }

    def forward(self, x: Tensor) -> Tensor:
        """What `readout` says of the output neurons; to spikes, a tie-break by potential is added.

        Spike outputs tie often and argmax would then prefer class 0. Ties are broken by membrane
        potential: sigmoid(u - Vth) / 1000 is added, too little to overturn one spike in 500 steps,
        and without a gradient, so that attacks see the spikes alone.
        """
        x = x.flatten(1)
        first, *later = noisy_layers(self)
        constant = first.drive(x) if self.encoding == "direct" else None
        states: list[tuple[Tensor, Tensor] | None] = [None] * len(self.layers)
        total: Tensor | None = None
        for _ in range(self.steps):
            drive = first.drive(self._bernoulli(x)) if constant is None else constant
            states[0] = self._membrane(states[0], first.inject(drive))
            for index, layer in enumerate(later, start=1):
                spikes = states[index - 1][1]  # type: ignore[index]
                states[index] = self._membrane(states[index], layer(spikes))
            if self.readout == "rate":
                spikes = states[-1][1]  # type: ignore[index]
                total = spikes if total is None else total + spikes
        potential, spikes = states[-1]  # type: ignore[misc]
        if self.readout == "membrane":
            return potential
        read = spikes if total is None else total / self.steps
        return read + torch.sigmoid(potential.detach() - self.threshold) / 1000

    def ties(self, logits: Tensor) -> Tensor:
        """Whether the two highest outputs tie; the tie-break of spikes is below 1/1000."""
        top = logits.topk(2, dim=1).values
        return (top[:, 0] - top[:, 1]) < (0.0 if self.readout == "membrane" else 1e-3)

    def _membrane(
        self, state: tuple[Tensor, Tensor] | None, current: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One step of Eq. 7: (potential, spikes) and the input current -> the next ones."""
        u = current
        if state is not None:
            left = torch.addcmul(state[0], state[0], state[1], value=-1)  # u (1 - s)
            u = torch.add(current, left, alpha=self.decay)
        return u, self.spike(u)

    def _bernoulli(self, x: Tensor) -> Tensor:
        """1{x > U(0, 1)}, with the derivative of the expected input (straight-through)."""
        spikes = (x > torch.rand(x.shape, generator=self.generator, device=x.device)).to(x.dtype)
        return x + (spikes - x).detach() if x.requires_grad else spikes
