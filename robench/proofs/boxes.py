"""Bounds through convolutions: what they settle of `cnn` and convolutional `snn`.

Every value of the network is held in an interval, layer by layer (interval bound propagation, Gowal
et al. 2018, arXiv 1810.12715), wide enough for what float32 rounds, so that intervals hold the
values that the real network computes. The lead of one class over another is bounded by the last
intervals, by a linear function of the pixels (linear.py), and, where both leave it open, by such
functions again, after intervals of unsettled units have been narrowed by them. Nothing is searched:
what the bounds do not prove stays open.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import thread_time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robench.networks.base import Network
from robench.networks.cnn import CNN
from robench.networks.noise import noisy_layers
from robench.networks.snn import SNN
from robench.proofs.bounds import TINY, tie_slack
from robench.proofs.linear import Box, Lines, Net, Value, around_sigmoid, between
from robench.proofs.reading import Reading, Unreadable, checked
from robench.proofs.region import Region, gamma
from robench.proofs.shallow import remains
from robench.proofs.units import SIGMOID_ERROR, Floats, Membrane, Pieces, Sigmoid, SpikeTrain, unit

FAST = 64
"""How much more than sums in some order a float32 convolution may be off: fast algorithms (Winograd
of up to 4x4 outputs) lose a digit or so."""
CURVED = 0.1
"""Intervals of sigmoids wider than this are narrowed."""
RISING = ("relu", "threshold", "sign", "staircase", "sigmoid")
"""Activations that never fall: their intervals end where those of their inputs do."""


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


def right(
    network: Network, x: Tensor, label: int, region: Region, units: int, seconds: float
) -> bool:
    """Whether the bounds prove that the answer is `label` at all points of the ball around x, (1,
    channels, height, width). Raises Unreadable where none are written for the network.

    Args:
        units: a layer with more unsettled units than this keeps the intervals that it has.
        seconds: of processor time, after which nothing is narrowed any more.
    """
    checked(network)
    if x.device.type != "cpu":
        raise Unreadable("convolutions are bounded as a CPU computes them")
    until = thread_time() + seconds
    box = Box(*(torch.from_numpy(end).view_as(x) for end in (region.low, region.high)))
    reach = None if region.box else region.reach
    with torch.no_grad():
        return any(_proved(network, Net(narrow, until, reach), box, label) for narrow in (0, units))


def _standardised(network: Network, net: Net, box: Box) -> Box:
    """What the first layer sees of the pixels; how far sums reach becomes that of what it sees."""
    if network.standardise == "none":
        return box
    mean, std = (network.get_buffer(f"input_{name}").double() for name in ("mean", "std"))
    box = Box((box.low - mean) / std, (box.high - mean) / std)
    rounding = gamma(2) * box.size() + TINY
    if (of_pixels := net.reach) is not None:
        scale = 1 / std.broadcast_to(box.low.shape).numpy().ravel()
        lost = rounding.numpy().ravel()
        net.reach = lambda v: of_pixels(v * scale) + np.abs(v) @ lost
    return box.wider(rounding)


def _proved(network: Network, net: Net, box: Box, label: int) -> bool:
    box = _standardised(network, net, box)
    if isinstance(network, CNN):
        lead = _convolutional(network, net, box, label)
    else:
        assert isinstance(network, SNN)
        lead = _spiking(network, net, box, label)
    wins = (lead.ahead > 0.5) | ((lead.ahead > -0.5) & ~(lead.most < -lead.slack))
    return not np.delete(wins, label).any()


def _convolutional(network: CNN, net: Net, box: Box, label: int) -> Lead:
    if network.activation not in RISING:
        raise Unreadable(f"no bounds for {network.activation} units behind convolutions")
    x = net.pixels(box)
    convolutions = noisy_layers(network.convolutions)
    for layer, pool, add in zip(convolutions, network.pools, network.adds, strict=True):
        value = _through(net, layer.op, x)
        if add:
            value = _sum(net, [value, x], gamma(2))
        x = _activated(network, net, value)
        x = _through(net, network.halve, x) if pool else x
    x = net.flat(x)
    *hidden, last = noisy_layers(network.layers)
    for layer in hidden:
        x = _activated(network, net, _through(net, layer.op, x))
    assert isinstance(last.op, nn.Linear)
    most = _lead(last.op, x.box, label)
    most = np.minimum(most, _ahead(net, [_through(net, last.op, x)], label))
    return Lead(most, np.zeros_like(most), np.zeros_like(most))


def _ahead(net: Net, answers: list[Value], label: int) -> Floats:
    """The most by which the sum of some answers of each class can exceed that of `label`."""
    rows = torch.eye(answers[0].box.low.shape[1], dtype=torch.float64)
    rows = rows - rows[label]
    most: Floats = net.most([(value, rows) for value in answers]).numpy()
    return most


def _activated(network: CNN, net: Net, value: Value) -> Value:
    phi = unit(network.activation)
    assert phi is not None
    if isinstance(phi, Sigmoid):
        net.narrowed(value, value.box.high - value.box.low > CURVED)
        lines = around_sigmoid(value.box)
    else:
        pieces = phi.pieces(-1e9, 1e9)
        net.narrowed(value, _unsettled(pieces, value.box))
        lines = between(pieces, 0, value.box)
    low, high = network.phi(value.box.low), network.phi(value.box.high)
    return net.unit(value, Box(low, high).wider(SIGMOID_ERROR), lines)


def _unsettled(pieces: Pieces, box: Box) -> Tensor:
    """Whether an interval reaches over an end of a piece."""
    unsettled = torch.zeros_like(box.low, dtype=torch.bool)
    for end in pieces.high[:-1].tolist():
        unsettled |= (box.low <= end) & (box.high >= end)
    return unsettled


def _sum(net: Net, parts: list[Value], rounds: float) -> Value:
    low, high = (
        torch.stack(ends).sum(0)
        for ends in ([part.box.low for part in parts], [part.box.high for part in parts])
    )
    rounding = rounds * torch.stack([part.box.size() for part in parts]).sum(0) + TINY
    return net.total(parts, Box(low, high).wider(rounding), rounding)


def _through(net: Net, op: nn.Module, x: Value, more: int = 0) -> Value:
    """Through a linear layer or a pooling. more: roundings that are to be allowed for besides."""
    box = x.box
    match op:
        case nn.Sequential():
            for part in op:
                x = _through(net, part, x, more)
            return x
        case nn.MaxPool2d():
            return net.greatest(x, op)
        case nn.AvgPool2d():
            rounding = gamma(8) * op(box.size()) + TINY
            return net.product(op, x, Box(op(box.low), op(box.high)).wider(rounding), rounding)
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
    rounding = gamma(operations) * product(size, weight.abs(), rounded) + TINY * (1 + size.max())
    return net.product(op, x, Box(middle - reach, middle + reach).wider(rounding), rounding)


def _lead(op: nn.Linear, box: Box, label: int) -> Floats:
    """The most by which each output of the last layer can exceed that of `label`."""
    weight, centre = op.weight.double(), (box.low + box.high)[0] / 2
    bias = weight.new_zeros(len(weight)) if op.bias is None else op.bias.double()
    rounding = gamma(weight.shape[1] + 4) * (weight.abs() @ box.size()[0] + bias.abs()) + TINY
    apart = weight - weight[label]
    most = apart @ centre + apart.abs() @ (box.high - box.low)[0] / 2 + bias - bias[label]
    return (most + rounding + rounding[label]).numpy()


def _spiking(network: SNN, net: Net, box: Box, label: int) -> Lead:
    if network.encoding != "direct":
        raise Unreadable(f"no bounds for spiking networks with {network.encoding} input")
    if not (0 <= network.decay <= 1 and network.threshold > 0 and network.steps >= 1):
        raise Unreadable("spiking units are read with 0 <= decay <= 1 and threshold > 0 only")
    membrane = Membrane(network.decay, network.threshold)
    convolutions = len(network.convolutions)
    first, *others = noisy_layers(network)
    # What a neuron adds up over its steps is rounded as if it were rounded once more each time.
    current = _through(net, first.op, net.pixels(box), 4 * network.steps)
    series = _trains(network, net, current)
    potential = current
    halve = nn.AvgPool2d(2)
    for index, layer in enumerate(others, start=1):
        if index <= convolutions:
            series = [_through(net, halve, step) for step in series]
        if index == convolutions:
            series = [net.flat(step) for step in series]
        currents = [_through(net, layer.op, step) for step in series]
        series, potential = _integrated(net, currents, membrane)
    low, high = potential.box.low[0].numpy(), potential.box.high[0].numpy()
    ahead = np.zeros(len(low))
    if network.readout == "rate":
        for step in series:
            ahead = ahead + (step.box.high[0] - step.box.low[0, label]).numpy()
        ahead = np.minimum(ahead, _ahead(net, series, label))
    squashed = None if network.readout == "membrane" else network.threshold
    votes = ((0, 0),) if network.readout == "rate" else ()
    reading = Reading((), votes=votes, squashed=squashed)
    slack = tie_slack(reading, low, high, low[label], high[label])
    most = np.minimum(high - low[label], _ahead(net, [potential], label))
    return Lead(most, slack, ahead)


def _trains(network: SNN, net: Net, current: Value) -> list[Value]:
    """Spikes at each step of neurons whose current is the same at all."""
    pieces = SpikeTrain(network.steps, network.decay, network.threshold).pieces(-1e9, 1e9)
    box = current.box
    least = [torch.ones_like(box.low) for _ in range(network.steps)]
    most = [torch.zeros_like(box.low) for _ in range(network.steps)]
    for a, b, spikes in zip(pieces.low, pieces.high, pieces.offset, strict=True):
        there = (box.low <= b) & (box.high >= a)
        for step, spike in enumerate(spikes.tolist()):
            least[step] = torch.where(there, least[step].clamp(max=spike), least[step])
            most[step] = torch.where(there, most[step].clamp(min=spike), most[step])
    return [
        net.unit(current, Box(low, high), between(pieces, step, box))
        for step, (low, high) in enumerate(zip(least, most, strict=True))
    ]


def _integrated(net: Net, currents: list[Value], membrane: Membrane) -> tuple[list[Value], Value]:
    """Spikes at each step, and the last potential."""
    pieces = membrane.pieces(-1e9, 1e9)
    u, series = currents[0], []
    for step, current in enumerate(currents):
        if step:
            u = _sum(net, [current, _kept(net, u, membrane)], gamma(4))
        net.narrowed(u, _unsettled(pieces, u.box))
        fires = [(end > membrane.threshold).double() for end in (u.box.low, u.box.high)]
        series.append(net.unit(u, Box(*fires), between(pieces, 0, u.box)))
    return series, u


def _kept(net: Net, u: Value, membrane: Membrane) -> Value:
    """What is left of a potential for the next step."""
    low, high = u.box.low.numpy(), u.box.high.numpy()
    least, _, down, under = map(torch.from_numpy, remains(low, high, membrane, upper=False))
    _, most, up, over = map(torch.from_numpy, remains(low, high, membrane, upper=True))
    return net.unit(u, Box(least, most), Lines((up, over + TINY), (down, under - TINY)))
