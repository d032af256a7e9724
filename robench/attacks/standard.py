"""The standard evaluation: an ensemble that has no settings, for any network. A budget is all it
takes.

Its members are those of AutoAttack (Croce & Hein 2020, arXiv 2003.01690) as runs of the native
loops, each on the images that those before it left: APGD on cross-entropy, APGD towards each likely
class on the margin, and Square, which needs no gradient. Networks that jump and noisy ones meet the
ensemble for them (spikes.py) between the two. FAB is not among them: the margin towards each class
does its work at a fixed radius.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from robench.attacks.base import Attack
from robench.attacks.contest import Best
from robench.attacks.gradient import APGD
from robench.attacks.loop import GradientAttack
from robench.attacks.spikes import DRAWS, members
from robench.attacks.square import Square
from robench.attacks.target import Precision, WhiteBoxTarget

QUERIES = 5000
"""Of Square, as AutoAttack has it."""


class Standard(Attack):
    """The evaluation to begin with: an ensemble for any network, without settings of its own."""

    precision: Precision = "float32"
    """Of the passes that gradients are taken in, as in the gradient family (loop.py)."""
    later: ClassVar[tuple[str, ...]] = ("precision",)
    version: ClassVar[int] = 2
    targeted: ClassVar[bool] = True
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    paper: ClassVar[str] = "Croce & Hein 2020, arXiv 2003.01690"

    def perturb(self, target: WhiteBoxTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        best = Best(x)
        eot = DRAWS if target.stochastic else 1
        attacks: list[GradientAttack] = [
            APGD(steps=100, eot=eot, precision=self.precision),
            APGD(steps=100, eot=eot, loss="margin", targets=9, precision=self.precision),
        ]
        if target.jumps or target.stochastic:
            attacks += members(target.stochastic, target.jumps, self.precision)
        for attack in attacks:
            attack.improve(best, target, x, y, rng, alone=False)
        if target.norm == "linf":
            Square(queries=QUERIES, eot=eot).improve(best, target, x, y, rng)
        return best.images
