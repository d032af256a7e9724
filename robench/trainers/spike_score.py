"""The score of a spike: what is left of the noise's where the network sees no more of a value than
whether it is above a threshold.

A neuron fires where eps > z = (Vth - drive) / sigma. The loss hangs on the spike s alone, so that
of L eps only L E[eps | s] is signal; the rest of eps is noise of its own. Taken the mean of
(Rao-Blackwell), the estimate stays unbiased and is never noisier:

    E[eps | fired] = phi(z) / Phi(-z),   E[eps | silent] = -phi(z) / Phi(z)
    E[eps^2 - 1 | s] = z E[eps | s]

Divided by sigma these are the derivatives of log P(s) by drive and sigma: REINFORCE for a Bernoulli
unit (Williams, Machine Learning 8, 1992) that fires as likely as the noise makes it. A neuron far
from its threshold, which no noise would have moved, then adds nothing to its own gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.noise import NoiseSource, NoisyLayer, noise


@dataclass
class SpikeScore:
    """Like the noise that was added, each copy by itself. of_drive: E[eps | s].
    of_sigma: E[eps^2 - 1 | s]."""

    of_drive: Tensor
    of_sigma: Tensor


def spike_score(potential: Tensor, threshold: float, eps: Tensor, sigma: Tensor) -> SpikeScore:
    """Of Gaussian noise.

    Args:
        potential: with the noise, like eps. eps: what was drawn, with its sign. sigma: broadcast.
    """
    z = (threshold - potential).div_(sigma).add_(eps)
    side = (potential > threshold).to(z.dtype).mul_(2).sub_(1)
    surprise = side * z  # far above 0: what happened is rare
    # Of noise beyond 11 sigma, which does not happen, the quotient would be 0 / 0.
    probability = torch.special.erfc(surprise * math.sqrt(0.5)).clamp_(min=1e-28)
    density = surprise.square_().mul_(-0.5).exp_()
    score = side.mul_(math.sqrt(2 / math.pi)).mul_(density).div_(probability)
    return SpikeScore(score, z.mul_(score))


@dataclass
class _Told(NoiseSource):
    layers: list[NoisyLayer] = field(default_factory=list)

    def fired(self, layer: NoisyLayer, potential: Tensor, threshold: float) -> None:
        self.layers.append(layer)


def need_spikes(network: Network) -> None:
    """Raise RobenchError where no noisy layer of the network is seen by its spikes alone."""
    told = _Told()
    like = next(network.parameters())
    with torch.no_grad(), noise(network, told):
        network(like.new_zeros(1, *network.input_shape))
    if not told.layers:
        raise RobenchError(
            f'trainer.score = "spike": network {type(network).__name__} has no layers that are '
            'seen by their spikes alone; use snn or activation = "threshold", or leave it out'
        )
