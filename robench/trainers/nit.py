"""NIT, NIT-S, NIT-S+: noise-injection training of spiking networks (Zhang et al., Eq. 1, 3 and 8).

Noise of learned strength enters every membrane at every step; weights and sigmas follow the
likelihood-ratio estimate from C noisy copies per image. No surrogate derivative is involved. NIT-S
replaces inputs and noise by their signs in the weights' line (Eq. 3); NIT-S+ starts as NIT-S and
goes on as NIT.

The defaults are the paper's where it says something: cross-entropy of the last step's spikes, the
noise of all steps, sigma from 1 on. Only sign(0) is 0 and not its 1 (see `sign_of_zero`). It does
not say the number of copies, their pairing, a baseline, learning rates, or a clamp of sigma: those
are ours.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.losses import cross_entropy_rows
from robench.trainers.base import Trainer
from robench.trainers.feedback import Feedback
from robench.trainers.likelihood_ratio import LayerWise, LikelihoodRatio, Pairing, Score
from robench.trainers.potential import potential_rows, potentials
from robench.trainers.sigma import clamp_sigmas, with_sigma_lr
from robench.trainers.spike_score import need_spikes
from robench.trainers.steps import LastSteps, steps_of


class NIT(Trainer):
    """Noise-injection training: likelihood ratio with learned sigma (Eq. 8)."""

    later: ClassVar[tuple[str, ...]] = ("layer_wise", "feedback", "score")
    copies: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], ...] = 40
    """C, noisy forward passes per image; pairing asks for a multiple of its sign patterns. With
    layer_wise: for each layer, or a list with a number for every layer."""
    layer_wise: LayerWise = False
    """As of trainer lr. "conditional" keeps the loss that Eq. 8 descends: noise in all layers, of
    which in turn one layer's varies from copy to copy."""
    lr: float = Field(default=1e-2, gt=0)
    sigma_lr: float = Field(default=1e-2, ge=0)
    """Learning rate of the sigmas; 0 keeps them as they start."""
    sigma_range: tuple[float, float] = (0.3, 5.0)
    """Clamp of the sigmas after each step; without a floor the output layer's sigma collapses."""
    schedule: Literal["constant", "cosine"] = "cosine"
    pairing: Pairing = "factorial"
    baseline: Literal["none", "leave-one-out", "noise-free"] = "leave-one-out"
    feedback: bool = False
    """As of trainer lr; not with Eq. 3."""
    score: Score = "noise"
    """As of trainer lr; not with Eq. 3."""
    criterion: Literal["cross-entropy", "potential"] = "cross-entropy"
    """cross-entropy: of what the network reads out; potential: of the output potentials, with which
    outputs that stay silent learn to fire (potential.py)."""
    last_steps: LastSteps = "all"
    """Only the noise of so many last time steps enters the gradient: slightly biased, far less
    variance. all: of all steps, as Eq. 8 says."""

    recordable = True
    noisy = True

    def may_replay(self, network: Network) -> bool:
        return self.pairing != "hadamard" and not self.feedback and super().may_replay(network)

    def signs_only(self, epoch: int) -> bool:
        """Whether an epoch, counted from 0, follows Eq. 3 instead of Eq. 8."""
        return False

    def sign_at_zero(self) -> int:
        """What sign(0) is in Eq. 3."""
        return 0

    def start_epoch(self, network: Network, epoch: int) -> bool:
        if not network.noisy:
            raise RobenchError(
                f"trainer nit: network {type(network).__name__} has no noisy layers; use snn or mlp"
            )
        if epoch == 0:
            self._feedback = Feedback() if self.feedback else None
            if self.score == "spike":
                need_spikes(network)
        self._estimator = LikelihoodRatio(
            copies=self.copies,
            pairing=self.pairing,
            baseline=self.baseline,
            layer_wise=self.layer_wise,
            last_steps=steps_of(self.last_steps),
            score=self.score,
            sign=self.signs_only(epoch),
            sign_of_zero=self.sign_at_zero(),
        )
        return epoch > 0 and self.signs_only(epoch) != self.signs_only(epoch - 1)

    def parameter_groups(self, network: Network) -> list[dict[str, Any]]:
        return with_sigma_lr(network, self.sigma_lr)

    def gradient(self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        if self.criterion == "cross-entropy":
            return self._estimator.backward(network, x, y, cross_entropy_rows, rng, self._feedback)
        with potentials(network) as threshold:
            loss = partial(potential_rows, threshold=threshold)
            return self._estimator.backward(network, x, y, loss, rng, self._feedback)

    def after_step(self, network: Network) -> None:
        clamp_sigmas(network, *self.sigma_range)


class NITS(NIT):
    """NIT with the sign approximation (Eq. 3)."""

    sign_of_zero: Literal[0, 1] = 0
    """What sign(0) is. 0: weights of silent inputs stay, as under Eq. 8. 1, as the paper defines
    it: they move too, with a baseline as well, which takes the mean loss away and not how the loss
    goes with the neuron's noise. MNIST, one seed, with the baseline: 92.0% with 0, 9.4% with 1."""
    recordable = True

    def sign_at_zero(self) -> int:
        return self.sign_of_zero

    def signs_only(self, epoch: int) -> bool:
        return True


class NITSPlus(NITS):
    """NIT-S for the first part of the epochs, then NIT with a fresh optimiser."""

    switch: float = Field(default=0.7, ge=0, le=1)
    """Share of the epochs after which Eq. 8 takes over."""
    recordable = True

    def signs_only(self, epoch: int) -> bool:
        return epoch < round(self.switch * self.epochs)
