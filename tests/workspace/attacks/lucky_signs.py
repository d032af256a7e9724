"""A decision-based attack in a file of a user's own: the best of many random sign patterns."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from robench.attacks.base import Attack
from robench.attacks.target import DecisionTarget


class LuckySigns(Attack):
    """Tries random corners of the ball and keeps the first that changes the label."""

    tries: int = Field(default=20, ge=1)
    """Corners tried per image, one query each."""
    needs: ClassVar[str] = "decision"

    def perturb(self, target: DecisionTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        found = x.clone()
        left = torch.nonzero(target.labels(x) == y)[:, 0]
        for _ in range(self.tries):
            if not len(left):
                break
            signs = torch.empty_like(x[left]).uniform_(-1, 1, generator=rng).sign()
            found[left] = target.project(x[left] + target.eps * signs, x[left])
            left = left[target.labels(found[left], left) == y[left]]
        return found
