"""The gradient family: one loop of signed steps; FGSM, BIM and PGD are settings of it.

FGSM: Goodfellow et al. 2015 (arXiv 1412.6572). BIM: Kurakin et al. 2017 (1607.02533).
PGD: Madry et al. 2018 (1706.06083). EOT: Athalye et al. 2018 (1707.07397).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from robench.attacks.base import Attack
from robench.attacks.target import RowLoss, WhiteBoxTarget, cross_entropy, margin
from robench.networks.surrogate import SWEEP, parse_surrogate

LOSSES: dict[str, RowLoss] = {"cross-entropy": cross_entropy, "margin": margin}


def _surrogate(text: str | None) -> str | None:
    if text not in (None, "sweep"):
        parse_surrogate(str(text))
    return text


class GradientAttack(Attack):
    """Signed gradient steps, projected after each."""

    steps: int = Field(default=15, ge=1)
    step_size: float | None = Field(default=None, gt=0)
    """Length of a step in pixel units; None: 2.5 eps / steps."""
    random_start: bool = False
    """Start from a uniform point of the ball."""
    restarts: int = Field(default=1, ge=1)
    """Runs from fresh starts; the image keeps its most adversarial one."""
    eot: int = Field(default=1, ge=1)
    """Draws of a stochastic network to average each gradient over."""
    loss: Literal["cross-entropy", "margin"] = "cross-entropy"
    surrogate: Annotated[str | None, AfterValidator(_surrogate)] = None
    """Derivative of steps and spikes: `rectangle:0.5`, ...; "sweep": several, the best kept per
    image; None: the network's own."""
    keep: Literal["best", "last"] = "best"
    """best: the iterate with the highest loss of each image; last: the final one, as papers do."""

    def perturb(self, target: WhiteBoxTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        names = SWEEP if self.surrogate == "sweep" else (self.surrogate,)
        best, best_loss = x.clone(), torch.full((len(x),), -torch.inf, device=x.device)
        for name in names:
            for _ in range(self.restarts):
                found, loss = self._run(target, x, y, rng, name)
                better = loss > best_loss
                best[better], best_loss[better] = found[better], loss[better]
        return best

    def _run(
        self,
        target: WhiteBoxTarget,
        x: Tensor,
        y: Tensor,
        rng: torch.Generator,
        surrogate: str | None,
    ) -> tuple[Tensor, Tensor]:
        """One run: the kept iterate of each image and its loss by margin, (n,)."""
        step = self.step_size if self.step_size is not None else 2.5 * target.eps / self.steps
        x_adv = x
        if self.random_start:
            noise = torch.empty_like(x).uniform_(-target.eps, target.eps, generator=rng)
            x_adv = target.project(x + noise, x)
        kept, kept_loss = x_adv, torch.full((len(x),), -torch.inf, device=x.device)
        draws = self.eot if target.stochastic else 1
        for _ in range(self.steps):
            grad, _, logits = target.gradient(x_adv, y, LOSSES[self.loss], draws, surrogate)
            if self.keep == "best":
                kept, kept_loss = _keep(kept, kept_loss, x_adv, margin(logits, y))
            x_adv = target.project(x_adv + step * grad.sign(), x)
        final = margin(target.logits(x_adv), y)
        if self.keep == "last":
            return x_adv, final
        return _keep(kept, kept_loss, x_adv, final)


def _keep(kept: Tensor, kept_loss: Tensor, x: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
    """Per image, the later iterate where its loss is at least as high."""
    better = loss >= kept_loss
    shape = (-1, *[1] * (x.dim() - 1))
    return torch.where(better.view(shape), x, kept), torch.where(better, loss, kept_loss)


class FGSM(GradientAttack):
    """One step of size eps along the gradient's sign."""

    steps: int = Field(default=1, ge=1, le=1)
    keep: Literal["best", "last"] = "last"
    randomised: ClassVar[bool] = False
    paper: ClassVar[str] = "Goodfellow et al. 2015, arXiv 1412.6572"

    def perturb(self, target: WhiteBoxTarget, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        if self.step_size is None:
            self.step_size = target.eps
        return super().perturb(target, x, y, rng)


class BIM(GradientAttack):
    """FGSM repeated in small steps from the clean image."""

    randomised: ClassVar[bool] = False
    paper: ClassVar[str] = "Kurakin et al. 2017, arXiv 1607.02533"


class PGD(GradientAttack):
    """BIM from a uniform random start."""

    random_start: bool = True
    paper: ClassVar[str] = "Madry et al. 2018, arXiv 1706.06083"
