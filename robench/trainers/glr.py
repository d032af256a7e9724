"""GLR: training by the generalised likelihood ratio method (Xiao et al., CASE 2020, arXiv
1902.00358).

Gaussian noise of fixed sigma enters every layer; Eq. 5 estimates the gradient of the expected loss
from K noisy forward passes per image. Neither the activation nor the loss needs a derivative, so
units may be thresholds and the loss may be the 0-1 loss:

    LRS   sigmoid, cross-entropy        LRSZ   sigmoid, 0-1 loss
    LRT   threshold, cross-entropy      LRTZ   threshold, 0-1 loss
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from robench.errors import RobenchError
from robench.networks.base import Network
from robench.networks.losses import cross_entropy_rows, zero_one_rows
from robench.networks.standard_noise import Distribution
from robench.trainers.base import Trainer
from robench.trainers.feedback import Feedback
from robench.trainers.likelihood_ratio import Baseline, LikelihoodRatio, Pairing, Score
from robench.trainers.spike_score import need_spikes


class GLR(Trainer):
    """Generalised likelihood ratio: K noisy copies, fixed sigma, no backpropagation."""

    later: ClassVar[tuple[str, ...]] = ("feedback", "score")
    copies: int = Field(default=100, ge=1)
    """K, noisy forward passes per image."""
    criterion: Literal["cross-entropy", "zero-one"] = "cross-entropy"
    warmup_epochs: int = Field(default=0, ge=0)
    """With the 0-1 loss: epochs of cross-entropy first. Without any (the papers' variant) a run
    often loses one to three classes for good."""
    pairing: Pairing = "factorial"
    """Which copies share a draw of the noise; see likelihood_ratio.py."""
    baseline: Baseline = "leave-one-out"
    feedback: bool = False
    """As of trainer lr: what a layer's noise does to the loss is foreseen and subtracted."""
    score: Score = "noise"
    """As of trainer lr, for units that are thresholds."""
    distribution: Distribution = "gaussian"
    optimizer: Literal["adam", "sgd"] = "sgd"
    lr: float = Field(default=1.0, gt=0)
    batch_size: int = Field(default=25, ge=1)
    recordable = True
    noisy = True

    def may_replay(self, network: Network) -> bool:
        return self.pairing != "hadamard" and not self.feedback and super().may_replay(network)

    def start_epoch(self, network: Network, epoch: int) -> bool:
        if not network.noisy:
            raise RobenchError(
                f"trainer glr: network {type(network).__name__} has no noisy layers; use mlp or snn"
            )
        if epoch == 0:
            self._feedback = Feedback() if self.feedback else None
            if self.score == "spike":
                need_spikes(network)
        warm = epoch >= self.warmup_epochs
        self._loss = zero_one_rows if warm and self.criterion == "zero-one" else cross_entropy_rows
        return False

    def gradient(self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        estimator = LikelihoodRatio(
            copies=self.copies,
            pairing=self.pairing,
            baseline=self.baseline,
            distribution=self.distribution,
            score=self.score,
        )
        return estimator.backward(network, x, y, self._loss, rng, self._feedback)
