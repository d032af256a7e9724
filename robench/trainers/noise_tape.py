"""A noise source that remembers what it drew: which noise went into which layer of which copy.

The network runs once for all copies of a chunk and without a graph; every noisy layer that is
asked about keeps the graph of its own op, and the noise that was added to what it computed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.noise import NoiseSource, NoisyLayer
from robench.networks.standard_noise import Distribution, NoiseStream
from robench.trainers.copies import Block, empty
from robench.trainers.spike_score import SpikeScore, spike_score

NO_CHAIN = (
    'trainer.pairing = "factorial": the layers of this network are no chain (each fed by the one '
    'before alone); use "hadamard" or "antithetic"'
)


@dataclass
class Injection:
    """One addition of noise, kept for the backward pass."""

    layer: NoisyLayer
    drive: Tensor  # (rows, ...), with the graph of the layer's op
    eps: Tensor  # (draws, images, ...)
    signs: Tensor  # of eps, (own patterns, patterns in the rows of `drive`)
    spike: SpikeScore | None = None  # (own patterns, patterns, draws, images, ...)

    def own(self, weights: Tensor) -> Tensor:
        """Of weights, (patterns, draws, images), what falls on eps, (patterns in the rows of
        `drive`, draws, images): later layers' patterns are added up, then the own ones with their
        signs."""
        return (self.signs[..., None, None] * self.each(weights)).sum(0)

    def each(self, weights: Tensor) -> Tensor:
        """The same for each of the own patterns, (own patterns, patterns, draws, images)."""
        return weights.view(-1, *self.signs.shape, *weights.shape[1:]).sum(0)


@dataclass
class NoiseTape(NoiseSource):
    """Draws noise for copies and keeps it.

    Args:
        active: the layers whose noise varies from copy to copy.
        signs: of the noise, (patterns, injections), or (patterns, 1) for all; None: the patterns
            double at each layer, plus and minus.
        others: noise of the layers that are not active, one draw for an image that all its copies
            share; without it they have none.
        last_steps: how many injections of a layer are kept; None: all.
        sign_at_zero: what sign(0) is where an op sees its inputs' signs (NIT-S); None: it sees the
            inputs.
        spikes: whether layers that are seen by their spikes alone have the score of a spike.
    """

    active: list[NoisyLayer]
    signs: Tensor | None
    x: Tensor
    rng: torch.Generator
    distribution: Distribution = "gaussian"
    quasi: bool = False
    others: bool = False
    last_steps: int | None = None
    sign_at_zero: Literal[0, 1] | None = None
    spikes: bool = False

    def __post_init__(self) -> None:
        self.images = len(self.x)
        self.pair = pair(self.x)
        self._beside = NoiseStream.from_generator(self.rng) if self.others else None
        self._shared: list[Tensor] = []  # noise of the other layers, the same for all copies

    def begin(self, blocks: list[Block]) -> None:
        """Forget what was drawn; draw these blocks next."""
        self.blocks = blocks
        self.draws = sum(block.draws for block in blocks)
        self.kept: dict[NoisyLayer, deque[Injection]] = {}
        self._streams = [block.stream(self.rng, self.x.device) for block in blocks]
        self._asked = self._asked_beside = 0

    def logits(self, network: Network) -> Tensor:
        """Of the copies that were drawn, (patterns x draws x images, classes)."""
        if network.shares_input:
            out: Tensor = network(self.x)
        else:  # it mixes the input in later
            copies = self.draws * (1 if self.signs is None else len(self.signs))
            out = network(self.x.repeat(copies, *[1] * (self.x.dim() - 1)))
        return out

    def drive(self, layer: NoisyLayer, *inputs: Any) -> Tensor:
        inputs = tuple(x.detach() if isinstance(x, Tensor) else x for x in inputs)
        with torch.set_grad_enabled(layer in self.active):
            drive: Tensor = layer.op(*inputs)
            if self.sign_at_zero is not None and drive.requires_grad:
                signed = layer.op(*map(self._signed, inputs))
                drive = signed + (drive - signed).detach()  # op's value, the gradient of signed
        return drive

    def _signed(self, x: Any) -> Any:
        if not (isinstance(x, Tensor) and x.is_floating_point()):
            return x
        signs = x.sign()
        return signs.masked_fill_(x == 0, 1.0) if self.sign_at_zero else signs

    def inject(self, layer: NoisyLayer, drive: Tensor) -> Tensor:
        if layer not in self.active:
            return drive if self._beside is None else self._same(layer, drive, self._beside)
        if len(drive) % self.images:
            raise RobenchError(
                f"a noisy layer answers {len(drive)} rows to {self.images} images: the first "
                "dimension of what it sees must be images"
            )
        draws = 1 if len(drive) == self.images else self.draws
        base = drive.detach().view(-1, draws, self.images, *drive.shape[1:])
        eps, signs = self._draw(drive), self._next_signs(len(base))
        queue = self.kept.setdefault(layer, deque(maxlen=self.last_steps))
        queue.append(Injection(layer, drive, eps, signs))
        signed_sigma = signs.view(*signs.shape, *[1] * eps.dim()) * layer.sigma
        noisy = empty((*signs.shape, self.draws, self.images), drive)
        return torch.addcmul(base, signed_sigma, eps, out=noisy).view(-1, *drive.shape[1:])

    def fired(self, layer: NoisyLayer, potential: Tensor, threshold: float) -> None:
        if self.spikes and layer in self.active:
            item = self.kept[layer][-1]
            eps = item.signs.view(*item.signs.shape, *[1] * item.eps.dim()) * item.eps
            item.spike = spike_score(potential.view(eps.shape), threshold, eps, layer.sigma)

    def _same(self, layer: NoisyLayer, drive: Tensor, stream: NoiseStream) -> Tensor:
        """The drive of another layer, with noise that all copies of an image share."""
        if self._asked_beside == len(self._shared):
            eps = empty((1, self.images), drive)
            stream.fill(eps, self.distribution, quasi=False)
            self._shared.append(eps)
        eps = self._shared[self._asked_beside]
        self._asked_beside += 1
        base = drive.view(-1, self.images, *drive.shape[1:])
        noisy = empty((len(base), self.images), drive)
        return torch.addcmul(base, layer.sigma, eps, out=noisy).view(-1, *drive.shape[1:])

    def _next_signs(self, earlier: int) -> Tensor:
        """Signs of the next injection, (own patterns, earlier patterns)."""
        if self.signs is None:
            if earlier == 2 ** len(self.active):
                raise RobenchError(NO_CHAIN)
            return self.pair.expand(2, earlier)
        column = self.signs[:, self._asked % self.signs.shape[1]]
        self._asked += 1
        return column.view(-1, earlier)

    def score(self, eps: Tensor) -> Tensor:
        """Minus the derivative of the log density of eps, or for NIT-S its sign."""
        by_sign = self.sign_at_zero is not None or self.distribution == "laplace"
        return eps.sign() if by_sign else eps

    def _draw(self, like: Tensor) -> Tensor:
        """eps, (draws, images, ...): every block from its own stream."""
        parts = []
        for block, stream in zip(self.blocks, self._streams, strict=True):
            parts.append(empty((block.draws, self.images), like))
            stream.fill(parts[-1], self.distribution, self.quasi)
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts, out=empty((self.draws, self.images), like))


@dataclass
class Counter(NoiseSource):
    """A noise source that adds nothing and counts how often it is asked."""

    active: list[NoisyLayer]
    injections: int = 0

    def inject(self, layer: NoisyLayer, drive: Tensor) -> Tensor:
        self.injections += layer in self.active
        return drive


def pair(like: Tensor) -> Tensor:
    """Plus and minus one, (2, 1)."""
    signs = like.new_ones(2, 1)
    signs[1] = -1.0
    return signs
