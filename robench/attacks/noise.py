"""Noise of the size of the budget: the floor that every attack must beat."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from robench.attacks.base import Attack
from robench.attacks.steps import direction
from robench.attacks.target import DecisionTarget


class Noise(Attack):
    """Random noise of size eps; asks the model nothing."""

    kind: Literal["sign", "uniform"] = "sign"
    """sign: every pixel moves by +eps or -eps; uniform: by U(-eps, eps). In l2: a random direction
    of length eps."""
    needs: ClassVar[str] = "decision"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")

    def perturb(self, target: DecisionTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        if target.norm == "l2":
            noise = direction(torch.empty_like(x).normal_(generator=rng), "l2")
        else:
            noise = torch.empty_like(x).uniform_(-1, 1, generator=rng)
            if self.kind == "sign":
                noise = noise.sign()
        return target.project(x + self.finite_eps(target) * noise, x)
