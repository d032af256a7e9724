"""S-IBP: training on what interval bounds cannot rule out (Liang et al. 2022, arXiv 2205.01625; the
schedule of eps and kappa: Gowal et al. 2018, 1810.12715, Eq. 12).

    min over theta of E[ kappa CE(u(x), y) + (1 - kappa) CE(worst, y) ]

u are the potentials that decide the prediction. `worst` has their lower bound at the right class
and their upper bound at every other, over all images in the ball: where the right class still
leads, no attack in the ball breaks the image. A spike is between those of the bounds of its
potential, and backwards has the surrogate derivative of the network, or of the trainer.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.noise import noisy_layers
from robench.networks.snn import SNN
from robench.networks.surrogate import SurrogateName, surrogate
from robench.trainers.base import Trainer, cross_entropy

Interval = tuple[Tensor, Tensor]
"""Lower and upper bounds, of the same shape."""


class SIBP(Trainer):
    """Cross-entropy on clean images, and on the worst answers that interval bounds allow."""

    eps: float = Field(default=0.1, gt=0)
    """Radius of the L-infinity ball, pixels in [0, 1]."""
    kappa: float = Field(default=0.5, ge=0, le=1)
    """Weight of the clean images at the end; 1 at the beginning."""
    ramp: tuple[float, float] = (0.1, 0.6)
    """Shares of the epochs between which eps grows from 0 and kappa falls from 1, evenly."""
    scale: float = Field(default=5.0, gt=0)
    """What potentials, which are of the size of the threshold, are multiplied with before the
    cross-entropy."""
    surrogate: SurrogateName = None
    """Derivative of the spikes; None: the network's own."""
    mean_of_rows: ClassVar[bool] = True

    def start_epoch(self, network: Network, epoch: int) -> bool:
        begin, end = self.ramp
        done = epoch / self.epochs
        self._share = min(max((done - begin) / max(end - begin, 1e-9), 0.0), 1.0)
        return False

    def loss(self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        eps, kappa = self.eps * self._share, 1 - self._share * (1 - self.kappa)
        with surrogate(network, self.surrogate):
            low, high = potential_bounds(network, (x - eps).clamp(0, 1), (x + eps).clamp(0, 1))
            _, clean = network.readings(x)
        right = F.one_hot(y, network.classes).bool()
        worst = torch.where(right, low, high)
        loss = kappa * cross_entropy(self.scale * clean, y)
        return loss + (1 - kappa) * cross_entropy(self.scale * worst, y)


def potential_bounds(network: Network, low: Tensor, high: Tensor) -> Interval:
    """Bounds of the last potential of the output neurons, (n, classes), over all images between
    `low` and `high`, (n, c, h, w); up to rounding. Differentiable as the network is.

    Raises RobenchError for a network that is no spiking one with direct input, whose last spikes or
    potentials are read out.
    """
    if (
        not isinstance(network, SNN)
        or network.readout == "rate"
        or network.encoding != "direct"
        or network.random_input
    ):
        raise RobenchError(
            'trainer s-ibp: bounds are of networks snn with encoding = "direct", readout = "last" '
            'or "membrane" and no gates; use another trainer, as "adversarial"'
        )
    low, high = network.standardised(low), network.standardised(high)
    if not network.convolutions:
        low, high = low.flatten(1), high.flatten(1)
    spikes: list[Interval] = [(low, high)]
    for index, layer in enumerate(noisy_layers(network)):
        if index:
            pooled = [network.halved(index, list(side)) for side in zip(*spikes, strict=True)]
            spikes = list(zip(*pooled, strict=True))
        currents = [_through(layer.op, *spike) for spike in spikes]
        if len(currents) == 1:  # the image drives every step
            currents *= network.steps
        spikes, potential = _integrated(network, currents)
    return potential


def _through(op: nn.Module, low: Tensor, high: Tensor) -> Interval:
    """Of a linear map: its centre moves by W, its half-width by |W|."""
    assert isinstance(op, (nn.Linear, nn.Conv2d))
    centre, half = op((low + high) / 2), (high - low) / 2
    size = op.weight.abs()
    width = F.conv2d(half, size, padding=1) if isinstance(op, nn.Conv2d) else F.linear(half, size)
    return centre - width, centre + width


def _integrated(network: SNN, currents: list[Interval]) -> tuple[list[Interval], Interval]:
    """Spikes at every step, and the last potential.

    What a neuron keeps of its potential u is k u where it did not spike and 0 where it did, u <=
    Vth and u > Vth: over an interval on both sides of Vth that is between k min(u, 0) and k Vth.
    """
    spikes: list[Interval] = []
    kept_low = kept_high = torch.zeros(())
    for low, high in currents:
        u_low, u_high = low + network.decay * kept_low, high + network.decay * kept_high
        sure, maybe = network.spike(u_low), network.spike(u_high)
        spikes.append((sure, maybe))
        kept_low = (1 - maybe) * u_low + (maybe - sure) * u_low.clamp_max(0)
        kept_high = (1 - maybe) * u_high + (maybe - sure) * network.threshold
    return spikes, (u_low, u_high)
