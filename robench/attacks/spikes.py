"""An ensemble for networks that jump, be it by spikes or by thresholds: a budget is all it takes.

Networks with jumps have no gradient, and no stand-in for it finds everything. The members are runs
of the one gradient loop in the order that pays; each gets the images that those before it left, and
each is here because it breaks images of some network that no other breaks (the table is in
attacks/README.md).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from robench.attacks.base import Attack
from robench.attacks.contest import Best
from robench.attacks.gradient import PGD
from robench.attacks.loop import GradientAttack
from robench.attacks.target import Precision, WhiteBoxTarget

DRAWS = 10
"""Draws of a noisy network that each gradient is averaged over."""
JUDGED = 64
"""Draws by which what the members found on a noisy network is compared: of many that are nearly as
good, few draws choose by luck."""


def members(
    noisy: bool, jumps: bool = True, precision: Precision = "float32"
) -> list[GradientAttack]:
    """The attacks of the ensemble, the ones that pay most first.

    Args:
        noisy: whether the network draws numbers; then what counts is how many draws are wrong.
        jumps: whether it has steps or spikes.
    """
    chosen = NOISY if noisy else SILENT
    if not jumps:
        chosen = chosen[:WITHOUT_JUMPS]
    if noisy:
        chosen = (*chosen, LAST)
    shared: dict[str, Any] = {
        "schedule": "sa-pgd",
        "momentum": 0.75,
        "on": "potential",
        "reset": "stopped",
        "loss": "margin",
        "eot": DRAWS if noisy else 1,
        "judged": JUDGED,
        "precision": precision,
    }
    return [PGD(**shared | own) for own in chosen]


SILENT: tuple[dict[str, Any], ...] = (
    {"steps": 40, "surrogate": "one-sided"},
    {"steps": 60, "surrogate": "one-sided", "targets": 9},
    {"steps": 60, "surrogate": "adaptive", "targets": 9},
    {"steps": 60, "surrogate": "one-sided:0.3", "targets": 9},
)
NOISY: tuple[dict[str, Any], ...] = (
    {"steps": 100, "surrogate": "fast-sigmoid:0.25", "loss": "accuracy"},
    {"steps": 100, "surrogate": "adaptive", "loss": "accuracy"},
    {"steps": 60, "surrogate": "one-sided", "targets": 9},
    {"steps": 60, "surrogate": "adaptive", "targets": 9},
)
LAST: dict[str, Any] = {
    "steps": 40,
    "surrogate": "fast-sigmoid:0.1",
    "loss": "accuracy",
    "restarts": 5,
    "restart_from": "near-best",
}
"""Of the noisy ensemble: short steps around the best image that all others have found. Images of a
noisy network are seldom won for good, and most lose a few draws more."""
WITHOUT_JUMPS = 2
"""Members that a network without jumps meets, and LAST: others differ from them by their
derivatives only."""


class Spikes(Attack):
    """An ensemble against networks that jump; a budget is all it takes."""

    version: ClassVar[int] = 2
    targeted: ClassVar[bool] = True
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    paper: ClassVar[str] = "SA-PGD: arXiv 2512.22522"

    def perturb(self, target: WhiteBoxTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        best = Best(x)
        for member in members(target.stochastic, target.jumps):
            member.improve(best, target, x, y, rng, alone=False)
        return best.images
