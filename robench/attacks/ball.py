"""The norm ball that an attack must stay in, and what of an item may change at all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ball:
    """The norm ball around clean images, cut with [0, 1]."""

    norm: str
    eps: float
    part: slice | None = None
    """Places along the last axis that may change at all; None: everything."""

    def free(self, x: Tensor) -> Tensor:
        """Which pixels may change, bool like x."""
        if self.part is None:
            return torch.ones_like(x, dtype=torch.bool)
        free = torch.zeros_like(x, dtype=torch.bool)
        free[..., self.part] = True
        return free

    def _held(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """x_adv, with what may not change as it is in x."""
        return x_adv if self.part is None else torch.where(self.free(x), x_adv, x)

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Norm of the perturbation of each image, (n,)."""
        delta = (x_adv - x).flatten(1)
        match self.norm:
            case "linf":
                return delta.abs().amax(1)
            case "l2" | "none":
                size: Tensor = torch.linalg.vector_norm(delta, dim=1)
                return size
            case "l1":
                return delta.abs().sum(1)
            case _:
                return (delta != 0).sum(1).to(delta.dtype)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest image in the ball and in [0, 1] (for l1: scaled back; l0: not projected)."""
        x_adv = self._held(x_adv, x)
        if self.norm == "linf":
            return torch.clamp(x_adv, *self.bounds(x))
        if self.norm in ("l2", "l1"):
            size = self.distance(x_adv, x).clamp_min(1e-12)
            scale = (self.eps / size).clamp_max(1).view(-1, *[1] * (x.dim() - 1))
            return (x + (x_adv - x) * scale).clamp(0, 1)
        return x_adv.clamp(0, 1)

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the greatest pixels that linf allows; a loop computes them once."""
        low, high = (x - self.eps).clamp_min_(0), (x + self.eps).clamp_max_(1)
        return self._held(low, x), self._held(high, x)
