"""AutoAttack: APGD-CE, APGD-T, FAB-T and Square in turn (Croce & Hein 2020, arXiv 2003.01690).

Through the package pyautoattack; `pip install 'robench[autoattack]'`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from robench.attacks.libraries.adapter import LibraryAttack
from robench.attacks.target import DecisionTarget
from robench.errors import RobenchError

Member = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]


class AutoAttack(LibraryAttack):
    """The standard ensemble of four attacks without settings."""

    members: tuple[Member, ...] = ()
    """Which of its attacks to run; none named: those of `variant`."""
    variant: Literal["standard", "plus", "rand"] = "standard"
    """plus: more attacks and restarts; rand: APGD with EOT, for networks that draw numbers."""
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    paper: ClassVar[str] = "Croce & Hein 2020, arXiv 2003.01690"
    library: ClassVar[str] = "autoattack"
    version: ClassVar[int] = 2

    def attacked(self, target: DecisionTarget, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        self.finite_eps(target)
        try:
            package: Any = import_module("pyautoattack")
        except ImportError as error:
            raise RobenchError(
                "attack autoattack: its package is not installed; pip install 'robench[autoattack]'"
            ) from error
        suite = package.AutoAttack(
            target.module(rows),
            norm={"linf": "Linf", "l2": "L2", "l1": "L1"}[target.norm],
            eps=target.eps,
            seed=int(torch.randint(2**31, ())),  # library_call has seeded it
            version="custom" if self.members else self.variant,
            attacks=list(self.members) or None,
            device=x.device,
        )
        suite.verbose = False
        x_adv: Tensor = suite.run_standard_evaluation(x, y, batch_size=len(x))[0]
        return x_adv
