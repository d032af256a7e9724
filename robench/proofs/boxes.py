"""Interval bounds through convolutions: what they settle of `cnn` and convolutional `snn`.

Every value of the network is held in an interval, layer by layer (interval bound propagation, Gowal
et al. 2018, arXiv 1810.12715), wide enough for what float32 rounds, so that intervals hold the
values that the real network computes. The last layer is bounded as the lead of one class over
another. Nothing is searched: what the bounds do not prove stays open.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robench.networks.base import Network
from robench.networks.cnn import CNN
from robench.networks.noise import NoisyLayer
from robench.networks.snn import SNN
from robench.proofs.bounds import TINY, gamma, tie_slack
from robench.proofs.reading import Reading, Unreadable, checked
from robench.proofs.shallow import remains
from robench.proofs.units import SIGMOID_ERROR, Floats, Membrane, SpikeTrain

FAST = 64
"""How much more than sums in some order a float32 convolution may be off: fast algorithms (Winograd
of up to 4x4 outputs) lose a digit or so."""
RISING = ("relu", "threshold", "sign", "staircase", "sigmoid")
"""Activations that never fall: their intervals end where those of their inputs do."""


@dataclass(frozen=True)
class Box:
    """An interval for each value, (1, ...)."""

    low: Tensor
    high: Tensor

    def size(self) -> Tensor:
        """The greatest absolute value of each."""
        return torch.maximum(self.low.abs(), self.high.abs())

    def wider(self, by: Tensor | float) -> Box:
        return Box(self.low - by, self.high + by)


@dataclass(frozen=True)
class Lead:
    """Of each class, (classes,): by how much it may lead the right one in the last
    pre-activation, how much lead may be lost in reading it, and, where spikes are counted, by how
    many of them it may lead."""

    most: Floats
    slack: Floats
    ahead: Floats


def convolutional(network: Network) -> bool:
    """Whether this file is to be asked about a network."""
    return type(network) is CNN or (type(network) is SNN and bool(network.convolutions))


def right(network: Network, low: Tensor, high: Tensor, label: int) -> bool:
    """Whether the bounds prove that the answer is `label` for all images in [low, high], (1,
    channels, height, width). Raises Unreadable where none are written for the network."""
    checked(network)
    if low.device.type != "cpu":
        raise Unreadable("convolutions are bounded as a CPU computes them")
    box = Box(low.double(), high.double())
    if type(network) is CNN:
        found = _convolutional(network, box, label)
    elif type(network) is SNN:
        found = _spiking(network, box, label)
    else:
        raise Unreadable(f"no bounds for {type(network).__name__}")
    wins = (found.ahead > 0.5) | ((found.ahead > -0.5) & ~(found.most < -found.slack))
    return not np.delete(wins, label).any()


def _convolutional(network: CNN, box: Box, label: int) -> Lead:
    if network.activation not in RISING:
        raise Unreadable(f"no bounds for {network.activation} units behind convolutions")
    for layer, pool, add in zip(network.convolutions, network.pools, network.adds, strict=True):
        assert isinstance(layer, NoisyLayer)
        value = _through(layer.op, box)
        if add:
            total = Box(value.low + box.low, value.high + box.high)
            value = total.wider(gamma(2) * (value.size() + box.size()) + TINY)
        box = _activated(network, value)
        box = _through(network.halve, box) if pool else box
    box = Box(box.low.flatten(1), box.high.flatten(1))
    *hidden, last = network.layers
    for layer in hidden:
        assert isinstance(layer, NoisyLayer)
        box = _activated(network, _through(layer.op, box))
    assert isinstance(last, NoisyLayer)
    assert isinstance(last.op, nn.Linear)
    most = _lead(last.op, box, label)
    return Lead(most, np.zeros_like(most), np.zeros_like(most))


def _activated(network: CNN, box: Box) -> Box:
    return Box(network.phi(box.low), network.phi(box.high)).wider(SIGMOID_ERROR)


def _through(op: nn.Module, box: Box, more: int = 0) -> Box:
    """Through a linear layer or a pooling. more: roundings that are to be allowed for besides."""
    match op:
        case nn.Sequential():
            for part in op:
                box = _through(part, box, more)
            return box
        case nn.MaxPool2d():
            return Box(op(box.low), op(box.high))
        case nn.AvgPool2d():
            return Box(op(box.low), op(box.high)).wider(gamma(8) * op(box.size()) + TINY)
        case nn.Conv2d() | nn.Linear():
            pass
        case _:
            raise Unreadable(f"no bounds for {type(op).__name__}")
    centre, radius, size = (box.low + box.high) / 2, (box.high - box.low) / 2, box.size()
    weight = op.weight.double()
    bias = None if op.bias is None else op.bias.double()
    rounded = None if bias is None else bias.abs()
    operations = weight[0].numel() + more + 4
    if isinstance(op, nn.Conv2d):
        operations *= FAST

    def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if isinstance(op, nn.Conv2d):
            return F.conv2d(x, weight, bias, op.stride, op.padding, op.dilation, op.groups)
        return F.linear(x, weight, bias)

    middle, reach = product(centre, weight, bias), product(radius, weight.abs(), None)
    rounding = gamma(operations) * product(size, weight.abs(), rounded)
    return Box(middle - reach, middle + reach).wider(rounding + TINY * (1 + size.max()))


def _lead(op: nn.Linear, box: Box, label: int) -> Floats:
    """The most by which each output of the last layer can exceed that of `label`."""
    weight, centre = op.weight.double(), (box.low + box.high)[0] / 2
    bias = weight.new_zeros(len(weight)) if op.bias is None else op.bias.double()
    rounding = gamma(weight.shape[1] + 4) * (weight.abs() @ box.size()[0] + bias.abs()) + TINY
    apart = weight - weight[label]
    most = apart @ centre + apart.abs() @ (box.high - box.low)[0] / 2 + bias - bias[label]
    return (most + rounding + rounding[label]).numpy()


def _spiking(network: SNN, box: Box, label: int) -> Lead:
    if network.encoding != "direct":
        raise Unreadable(f"no bounds for spiking networks with {network.encoding} input")
    if not (0 <= network.decay <= 1 and network.threshold > 0 and network.steps >= 1):
        raise Unreadable("spiking units are read with 0 <= decay <= 1 and threshold > 0 only")
    membrane = Membrane(network.decay, network.threshold)
    convolutions = len(network.convolutions)
    first, *others = network.layers
    assert isinstance(first, NoisyLayer)
    # What a neuron adds up over its steps is rounded as if it were rounded once more each time.
    series = _trains(network, _through(first.op, box, 4 * network.steps))
    potential = box
    halve = nn.AvgPool2d(2)
    for index, layer in enumerate(others, start=1):
        assert isinstance(layer, NoisyLayer)
        if index <= convolutions:
            series = [_through(halve, step) for step in series]
        if index == convolutions:
            series = [Box(step.low.flatten(1), step.high.flatten(1)) for step in series]
        series, potential = _integrated([_through(layer.op, step) for step in series], membrane)
    low, high = potential.low[0].numpy(), potential.high[0].numpy()
    ahead = np.zeros(len(low))
    if network.readout == "rate":
        ahead = sum((step.high[0] - step.low[0, label]).numpy() for step in series) + ahead
    squashed = None if network.readout == "membrane" else network.threshold
    votes = ((0, 0),) if network.readout == "rate" else ()
    reading = Reading((), votes=votes, squashed=squashed)
    slack = tie_slack(reading, low, high, low[label], high[label])
    return Lead(high - low[label], slack, ahead)


def _trains(network: SNN, current: Box) -> list[Box]:
    """Spikes at each step of neurons whose current is the same at all."""
    pieces = SpikeTrain(network.steps, network.decay, network.threshold).pieces(-1e9, 1e9)
    least = [torch.ones_like(current.low) for _ in range(network.steps)]
    most = [torch.zeros_like(current.low) for _ in range(network.steps)]
    for a, b, spikes in zip(pieces.low, pieces.high, pieces.offset, strict=True):
        there = (current.low <= b) & (current.high >= a)
        for step, spike in enumerate(spikes.tolist()):
            least[step] = torch.where(there, least[step].clamp(max=spike), least[step])
            most[step] = torch.where(there, most[step].clamp(min=spike), most[step])
    return [Box(low, high) for low, high in zip(least, most, strict=True)]


def _integrated(currents: list[Box], membrane: Membrane) -> tuple[list[Box], Box]:
    """Spikes at each step, and the last potential."""
    u, series = currents[0], []
    for step, current in enumerate(currents):
        if step:
            low, high = u.low.numpy(), u.high.numpy()
            least = remains(low, high, membrane, upper=False)[0]
            most = remains(low, high, membrane, upper=True)[1]
            kept = Box(torch.from_numpy(least), torch.from_numpy(most))
            u = Box(current.low + kept.low, current.high + kept.high)
            u = u.wider(gamma(4) * (current.size() + kept.size()) + TINY)
        fires = [(end > membrane.threshold).double() for end in (u.low, u.high)]
        series.append(Box(*fires))
    return series, u
