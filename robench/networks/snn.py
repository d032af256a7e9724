"""Spiking network of leaky integrate-and-fire neurons (NIT Eq. 7), dense or convolutional.

u[t+1] = k u[t] (1 - s[t]) + W x[t+1] + sigma eps,   s = 1{u > Vth}

The reset applies to the previous potential only. State starts at zero at every call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from robench.errors import RobenchError
from robench.networks.base import Network, lent
from robench.networks.lif import integrate
from robench.networks.modules.over_time import bernoulli, by_time
from robench.networks.noise import NoisyLayer, Series
from robench.networks.operations import counted
from robench.networks.surrogate import Step


class SNN(Network):
    """Spiking network (leaky integrate-and-fire), fully connected or convolutional."""

    later: ClassVar[tuple[str, ...]] = ("convolutions", "gates")
    recordable = True

    convolutions: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Output channels of 3x3 convolutions before the full layers; the spikes of each are averaged
    over 2x2 pixels (STBP's 32C3-P2-32C3-P2 is [32, 32]). Neurons of a channel share sigma. With
    convolutions all weights start uniform with He's variance, 2 / fan_in: with a sixth of it, as
    the fully connected network starts, no spike gets through four layers."""
    hidden: tuple[int, ...] = (50,)
    steps: int = 5
    """Time steps T."""
    decay: float = 0.2
    """k, the share of the potential that survives one step."""
    threshold: float = 0.5
    """Vth."""
    encoding: Literal["direct", "bernoulli", "events"] = "direct"
    """direct: the image is a constant current; bernoulli: a pixel spikes with its value as rate;
    events: channels are time x 2 polarities, and each step sees its two."""
    readout: Literal["last", "rate", "membrane"] = "last"
    """last: spikes of the last step; rate: mean of the spikes over the steps; membrane: potential
    of the output neurons at the last step, which never ties."""
    gates: float = Field(default=1.0, gt=0, le=1)
    """Probability that a hidden spike is passed on, drawn anew for every neuron and step, in
    training and in use (StoG: Ding et al., AAAI 2024)."""
    sigma: float = 1.0
    """Initial standard deviation of the membrane noise, where a trainer or model card turns it
    on."""
    learned_sigma: bool = True
    surrogate: str = "rectangle:0.5"

    def build(self) -> None:
        channels, height, width = self.input_shape
        if self.encoding == "events":
            channels = by_time(torch.empty(0, *self.input_shape), self.steps).shape[2]
        layers = []
        for after in self.convolutions:
            if min(height, width) < 2:
                raise RobenchError(
                    f"network snn: convolutions = {list(self.convolutions)}: their halvings leave "
                    f"nothing of a {'x'.join(map(str, self.input_shape[1:]))} image; list fewer"
                )
            convolution = nn.Conv2d(channels, after, 3, padding=1, bias=False)
            layers.append(NoisyLayer(convolution, (after, 1, 1), self.sigma, self.learned_sigma))
            channels, height, width = after, height // 2, width // 2
        for a, b in pairwise([channels * height * width, *self.hidden, self.classes]):
            full = nn.Linear(a, b, bias=False)
            layers.append(NoisyLayer(full, (b,), self.sigma, self.learned_sigma))
        self.layers = nn.ModuleList(layers)
        if self.convolutions:
            for name, weight in self.layers.named_parameters():
                if name.endswith("weight"):
                    nn.init.kaiming_uniform_(weight, nonlinearity="relu")
        self.spike = Step(self.surrogate, at=self.threshold)

    @property
    def random_input(self) -> bool:
        return self.encoding == "bernoulli" or self.gates < 1

    def activity(self, x: Tensor) -> dict[str, float]:
        """Mean spikes per neuron and step of every layer, "spike_rate_1", ..., and operations for
        an image (operations.py)."""
        with counted(self) as operations:
            rates = {
                f"spike_rate_{index}": sum(float(step.detach().mean()) for step in spikes)
                / self.steps
                for index, (spikes, _) in enumerate(self._run(self.standardised(x)), start=1)
            }
        return {**rates, **operations.for_each(len(x))}

    def forward(self, x: Tensor) -> Tensor:
        """What `readout` says of the output neurons; to spikes, a tie-break by potential is added.

        Spike outputs tie often and argmax would then prefer class 0. Ties are broken by membrane
        potential: sigmoid(u - Vth) / 1000 is added, too little to overturn one spike in 500 steps,
        and without a gradient, so that attacks see the spikes alone.
        """
        *_, (spikes, potential) = self._run(x)
        return self._read(spikes, potential)

    def readings(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logits, and the last potential of the output neurons: under `last` the neuron whose
        potential is highest is the prediction. Under `rate` it is not; there the potential lends
        its gradient to the logits."""
        *_, (spikes, potential) = self._run(self.standardised(x))
        logits = self._read(spikes, potential)
        return logits, lent(logits, potential) if self.lends else potential

    @property
    def lends(self) -> bool:
        return self.readout == "rate"

    def _read(self, spikes: Series, potential: Tensor) -> Tensor:
        if self.readout == "membrane":
            return potential
        read = spikes[-1]
        if self.readout == "rate":
            read = sum(spikes[1:], spikes[0]) / self.steps
        return read + torch.sigmoid(potential.detach() - self.threshold) / 1000

    def ties(self, logits: Tensor) -> Tensor:
        """Whether the two highest outputs tie; the tie-break of spikes is below 1/1000."""
        top = logits.topk(2, dim=1).values
        return (top[:, 0] - top[:, 1]) < (0.0 if self.readout == "membrane" else 1e-3)

    def _run(self, x: Tensor) -> Iterator[tuple[Series, Tensor]]:
        """Of each layer in turn, the spikes at every step and the potential at the last one.

        Spikes only go forward, so that a layer can live through all its steps before the next one
        begins: its products, its noise and its derivatives are then computed in one go.
        """
        if self.encoding == "events":
            inputs: Series = by_time(x, self.steps)
            if not self.convolutions:
                inputs = torch.stack([step.flatten(1) for step in inputs])
        else:
            x = x if self.convolutions else x.flatten(1)
            inputs = x[None]
        if self.encoding == "bernoulli":
            inputs = torch.stack([bernoulli(x, self.generator) for _ in range(self.steps)])
        for index, layer in enumerate(cast(Iterable[NoisyLayer], self.layers)):
            if index:
                inputs = self.halved(index, self._gated(inputs))
            currents = layer.over_time(inputs, self.steps)
            inputs, potential = integrate(currents, self.steps, self.decay, self.spike)
            if index + 1 < len(self.layers):
                layer.fired(potential, self.threshold)
            yield inputs, potential

    def _gated(self, spikes: Series) -> Series:
        """Those that are passed on."""
        if self.gates == 1:
            return spikes
        return [
            step
            * (torch.rand(step.shape, generator=self.generator, device=step.device) < self.gates)
            for step in spikes
        ]

    def halved(self, index: int, spikes: Series) -> Series:
        """What layer `index` gets of the spikes before it."""
        convolutions = len(self.convolutions)
        if index > convolutions:
            return spikes
        means = [F.avg_pool2d(step, 2) for step in spikes]
        return means if index < convolutions else [mean.flatten(1) for mean in means]
