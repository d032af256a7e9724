"""HIRE-SNN: training with crafted input noise (Kundu, Pedram, Beerel 2021, arXiv 2110.11417).

The time of a batch is cut into periods. In each the network sees the image with the noise so far,
and its weights are updated; the gradient by the input that the same backward pass leaves then moves
the noise along its sign, up to `eps`. Noise that follows the weights so comes without passes of its
own. In the paper potentials are carried from one period to the next; here a network keeps no state,
and every period is a whole run of its time steps.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from robench.networks.base import Network
from robench.trainers.base import Trainer, cross_entropy


class HireSNN(Trainer):
    """An update for every period, each on images whose noise the one before has crafted."""

    eps: float = Field(default=0.05, gt=0)
    """Largest noise, pixels in [0, 1]."""
    step_size: float | None = Field(default=None, gt=0)
    """By how much each period moves it; None: eps / (periods - 1)."""
    periods: int = Field(default=2, ge=1)

    def make_optimizer(self, network: Network) -> torch.optim.Optimizer:
        self._optimizer = super().make_optimizer(network)
        return self._optimizer

    def gradient(
        self, network: Network, x: Tensor, y: Tensor, rng: torch.Generator
    ) -> float | Tensor:
        noise = torch.zeros_like(x)
        for period in range(self.periods):
            seen = (x + noise).clamp(0, 1).requires_grad_()
            loss = cross_entropy(network(seen), y)
            loss.backward()  # type: ignore[no-untyped-call]
            if period == self.periods - 1:
                break  # the loop that all trainers share takes the last step
            self._optimizer.step()
            self._optimizer.zero_grad()
            assert seen.grad is not None
            step = self.step_size if self.step_size is not None else self.eps / (self.periods - 1)
            noise = (noise + step * seen.grad.sign()).clamp(-self.eps, self.eps)
        return loss.detach()
