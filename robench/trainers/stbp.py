"""STBP: autograd through time with a surrogate derivative of the spike (Wu, Deng, Li, Zhu, Shi
2018).

The derivative is the network's `surrogate` unless the trainer names another. STBP-N is NIT's
control: the same with noise in every neuron, in training and (by the card's `inference_noise`) in
use.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.noise import GaussianNoise, noise
from robench.networks.surrogate import Step, SurrogateName, surrogate
from robench.trainers.base import Trainer, cross_entropy
from robench.trainers.potential import potential_rows, potentials


class STBP(Trainer):
    """Backpropagation through time with a surrogate derivative."""

    surrogate: SurrogateName = None
    """rectangle, polynomial, sigmoid, gaussian, fast-sigmoid or arctan, with `:parameter`."""
    criterion: Literal["cross-entropy", "mse", "potential"] = "cross-entropy"
    """mse: to one-hot targets, as in STBP's code; potential: of the output potentials
    (potential.py), to compare with a NIT that was trained so."""
    recordable = True

    def loss(self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        if not any(isinstance(module, Step) for module in network.modules()):
            raise RobenchError(
                f"trainer stbp: network {type(network).__name__} has no spikes; use trainer bp"
            )
        with surrogate(network, self.surrogate):
            if self.criterion == "potential":
                with potentials(network) as threshold:
                    return potential_rows(network(x), y, threshold).mean()
            out = network(x)
            if self.criterion == "mse":
                return F.mse_loss(out, F.one_hot(y, out.shape[1]).to(out.dtype))
            return cross_entropy(out, y)


class STBPN(STBP):
    """STBP with Gaussian noise in every neuron; gradients flow through the noise."""

    recordable = True
    noisy = True

    def loss(self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        with noise(network, GaussianNoise(rng)):
            return super().loss(network, x, y, rng)
