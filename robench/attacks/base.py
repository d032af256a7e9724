"""The attack contract: a target and images in, images out."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from robench.errors import RobenchError
from robench.workspace.plugins import Plugin


class Attack(Plugin):
    """Perturbs images. The framework keeps the score: it projects, re-predicts and counts.

    Subclasses declare their settings as fields and override `perturb`.
    """

    needs: ClassVar[str] = "white-box"
    """The least access the attack can work with: white-box, score or decision."""
    norms: ClassVar[tuple[str, ...]] = ("linf",)
    """Norms that the attack supports."""
    targeted: ClassVar[bool] = False
    """Whether it goes towards `target.aim`, a class for each image, where that is not None: raises
    `target.gap(logits, target.sought(y))` above 0, along `target.gradient(x, target.sought(y))`."""
    randomised: ClassVar[bool] = True
    """Whether it draws numbers; without, results do not depend on how images are batched."""
    on_relatives: ClassVar[bool] = False
    """Whether it is also run on relatives of the test images, for a diagnostic."""
    paper: ClassVar[str] = ""

    def perturb(self, target: Any, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        """Adversarial images.

        Args:
            target: what may be asked of the model (attacks/target.py); `target.eps`, `target.norm`
                and `target.project(x_adv, x)` are the budget.
            x: clean images, (n, c, h, w), float32 in [0, 1]. y: true labels, (n,).
            rng: the only source of randomness, on the device of x.

        Returns images like x, inside the ball and [0, 1]. What is outside by more than rounding
        makes the cell fail.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it perturbs")

    def finite_eps(self, target: Any) -> float:
        """The budget, for attacks that need one. Raises RobenchError where it is infinite."""
        eps = float(target.eps)
        if not math.isfinite(eps):
            raise RobenchError(f"eps = inf: {type(self).__name__} needs a finite budget")
        return eps
