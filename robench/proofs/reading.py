"""A network read as stages: sums of earlier outputs, and the units that they go into.

Only what is computed exactly as written here is read: the classes MLP, FC and SNN themselves, no
subclass, without noise in use. Weights become float64, which holds a float32 exactly; what float32
rounds on the way is bounded in bounds.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from robench.networks.base import Network
from robench.networks.fc import FC
from robench.networks.mlp import MLP
from robench.networks.snn import SNN
from robench.proofs.units import Floats, Identity, Membrane, SpikeTrain, Unit, unit

PIXELS = -1


class Unreadable(Exception):
    """A network, or a part of one, that no encoding is written for; its images stay open."""


@dataclass(frozen=True)
class Source:
    """What flows into a stage: one output of each unit of an earlier one.

    matrix: (units here, units there); None: each unit's own output, one to one.
    """

    stage: int
    output: int = 0
    matrix: Floats | None = None


@dataclass(frozen=True)
class Stage:
    """Units that can be computed together: p = sum of the sources + bias, outputs = unit(p)."""

    sources: tuple[Source, ...]
    bias: Floats
    unit: Unit
    operations: int
    """Roundings on the way to p, at most."""
    answers: bool = False
    """Whether its units are the classes."""

    @property
    def size(self) -> int:
        return len(self.bias)


@dataclass(frozen=True)
class Reading:
    """A network as stages in an order in which they can be computed."""

    stages: tuple[Stage, ...]
    scale: Floats | float = 1.0
    shift: Floats | float = 0.0
    """The first stage sees scale pixel + shift, each a number or one for every pixel."""
    votes: tuple[tuple[int, int], ...] = ()
    """(stage, output) that are counted: more of them beats everything, and only among equals does
    the last stage decide. Of a rate read-out the spikes; else empty."""
    squashed: float | None = None
    """The last stage's p is read as 1{p > squashed} + sigmoid(p - squashed) / 1000, or by a rate
    read-out as the second term alone; None: p is read as it is."""

    @property
    def first(self) -> Floats:
        """The weights of the first stage, (units, pixels)."""
        matrix = self.stages[0].sources[0].matrix
        assert matrix is not None
        return matrix

    @property
    def pixels(self) -> int:
        return int(self.first.shape[1])


def checked(network: Network) -> None:
    """Raises Unreadable where a network may compute something else than its layers say."""
    if network.random_now:
        raise Unreadable("the network draws numbers: an exact proof needs its noise off")
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    if hooked:
        raise Unreadable("the network has hooks, which may change what it computes")


def read(network: Network) -> Reading:
    """The stages of a network. Raises Unreadable saying what there is no encoding for."""
    checked(network)
    if type(network) is MLP or type(network) is FC:
        return _standardised(network, _perceptron(network))
    if type(network) is SNN:
        return _standardised(network, _spiking(network))
    raise Unreadable(f"no encoding of {type(network).__name__}: mlp, fc and snn can be proved")


def input_scale(network: Network) -> Floats | float:
    """What a network of full layers multiplies its pixels with before the first of them."""
    span = 2 * network.span if isinstance(network, FC) else 1.0
    if network.standardise == "none":
        return span
    std = _numbers(network.get_buffer("input_std"))
    scale: Floats = span / np.broadcast_to(std, network.input_shape).ravel()
    return scale


def _standardised(network: Network, reading: Reading) -> Reading:
    """The same where the network takes a mean from its pixels first and divides by a deviation:
    two roundings, as the stages allow for."""
    if network.standardise == "none":
        return reading
    scale = input_scale(network)
    mean = _numbers(network.get_buffer("input_mean"))
    mean = np.broadcast_to(mean, network.input_shape).ravel()
    return replace(reading, scale=scale, shift=reading.shift - scale * mean)


def _numbers(value: torch.Tensor) -> Floats:
    return value.detach().cpu().numpy().astype(np.float64)


def _matrices(layers: nn.ModuleList) -> list[tuple[Floats, Floats]]:
    """Weights and biases of fully connected layers."""
    matrices = []
    for layer in layers:
        op = layer.op
        assert isinstance(op, nn.Linear)
        weight = _numbers(op.weight)
        matrices.append((weight, np.zeros(len(weight)) if op.bias is None else _numbers(op.bias)))
    return matrices


def _perceptron(network: MLP | FC) -> Reading:
    phi = unit(network.activation)
    if phi is None:
        raise Unreadable(f"no encoding of {network.activation} units")
    stages: list[Stage] = []
    for index, (weight, bias) in enumerate(matrices := _matrices(network.layers)):
        last = index == len(matrices) - 1
        source = Source(index - 1 if index else PIXELS, 0, weight)
        stages.append(
            Stage((source,), bias, Identity() if last else phi, weight.shape[1] + 4, last)
        )
    if isinstance(network, FC):
        return Reading(tuple(stages), 2 * network.span, -network.span)
    return Reading(tuple(stages))


def _spiking(network: SNN) -> Reading:
    if network.convolutions:
        raise Unreadable("no encoding of convolutional spiking networks")
    if network.encoding != "direct":
        raise Unreadable(f"no encoding of spiking networks with {network.encoding} input")
    if not (0 <= network.decay <= 1 and network.threshold > 0 and network.steps >= 1):
        raise Unreadable("spiking units are read with 0 <= decay <= 1 and threshold > 0 only")
    matrices = [weight for weight, _ in _matrices(network.layers)]
    if len(matrices) == 1:
        raise Unreadable("no encoding of a spiking network without hidden neurons")
    train = SpikeTrain(network.steps, network.decay, network.threshold)
    first = matrices[0]
    drive = Source(PIXELS, 0, first)
    # What a neuron adds up over its steps is rounded as if it were rounded once more each time.
    rounded = first.shape[1] + 4 * network.steps
    stages = [Stage((drive,), np.zeros(len(first)), train, rounded)]
    spikes = tuple((0, step) for step in range(network.steps))
    membrane = Membrane(network.decay, network.threshold)
    for weight in matrices[1:]:
        last = weight is matrices[-1]
        following: list[tuple[int, int]] = []
        for step in range(network.steps):
            stage, output = spikes[step]
            sources = [Source(stage, output, weight)]
            if step:
                sources.append(Source(len(stages) - 1, 1))
            ends = last and step == network.steps - 1 and network.readout != "rate"
            phi = Identity() if ends else membrane
            stages.append(
                Stage(tuple(sources), np.zeros(len(weight)), phi, weight.shape[1] + 4, last)
            )
            following.append((len(stages) - 1, 0))
        spikes = tuple(following)
    votes = spikes if network.readout == "rate" else ()
    squashed = None if network.readout == "membrane" else network.threshold
    return Reading(tuple(stages), votes=votes, squashed=squashed)
