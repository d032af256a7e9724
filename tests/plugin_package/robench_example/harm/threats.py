"""An attack and a corruption."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from robench import Attack, Corruption


class Brightest(Attack):
    """Signs of the gradient, on each image as a whole."""

    needs: ClassVar[str] = "white-box"
    randomised: ClassVar[bool] = False

    def perturb(self, target: Any, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        return target.project(x + target.eps * target.gradient(x, y).gradient.sign(), x)


class Dimming(Corruption):
    """Less light."""

    kinds: tuple[str, ...] = ("dim",)

    def corrupt(
        self, image: np.ndarray, kind: str, severity: int, rng: np.random.Generator
    ) -> np.ndarray:
        return image * (1 - 0.15 * severity)
