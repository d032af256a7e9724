"""Attacks of torchattacks (Harry24k, arXiv 2010.01950) from a file of a user's own."""

from __future__ import annotations

from typing import Any, ClassVar

import torchattacks
from pydantic import Field
from torch import Tensor

from robench.attacks.libraries.adapter import LibraryAttack
from robench.attacks.target import WhiteBoxTarget


class Torchattacks(LibraryAttack):
    """One of the linf attacks of torchattacks, by its class name there."""

    library: ClassVar[str] = "torchattacks"
    needs: ClassVar[str] = "white-box"

    attack: str = "PGD"
    """PGD, MIFGSM, APGD, ..."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of that class other than model and eps."""

    def attacked(self, target: WhiteBoxTarget, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        made = getattr(torchattacks, self.attack)
        return made(target.module(rows).eval(), eps=target.eps, **self.options)(x, y)
