"""What an attack may see of a model: labels, logits or gradients, as the card's `access` says.

A target counts what it is asked. A black-box target computes without a graph, so it has no gradient
to give, whatever is done to its answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robench.networks.base import Network
from robench.networks.surrogate import surrogate as using_surrogate

RowLoss = Callable[[Tensor, Tensor], Tensor]
"""(n, classes) logits and (n,) labels -> (n,) losses that an attacker maximises."""


class BudgetExceeded(Exception):
    """The attack asked for more than its card allows, or left its norm ball."""


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy per row; saturates where the network is sure."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Largest wrong logit minus the right one (Carlini & Wagner 2017); positive where fooled."""
    right = logits.gather(1, y[:, None])[:, 0]
    wrong = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return wrong - right


class Ball:
    """The norm ball around clean images, cut with [0, 1]."""

    def __init__(self, norm: str, eps: float) -> None:
        self.norm = norm
        self.eps = eps

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Norm of the perturbation of each image, (n,)."""
        delta = (x_adv - x).flatten(1)
        match self.norm:
            case "linf":
                return delta.abs().amax(1)
            case "l2" | "none":
                return delta.norm(dim=1)
            case "l1":
                return delta.abs().sum(1)
            case _:
                return (delta != 0).sum(1).to(delta.dtype)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest image in the ball and in [0, 1] (for l1: scaled back; l0: not projected)."""
        if self.norm == "linf":
            # Bounds in this order, so that rounding never leaves |x_adv - x| above eps by an ulp.
            return torch.minimum(torch.maximum(x_adv, x - self.eps), x + self.eps).clamp(0, 1)
        if self.norm in ("l2", "l1"):
            size = self.distance(x_adv, x).clamp_min(1e-12)
            scale = (self.eps / size).clamp_max(1).view(-1, *[1] * (x.dim() - 1))
            return (x + (x_adv - x) * scale).clamp(0, 1)
        return x_adv.clamp(0, 1)


class DecisionTarget:
    """A model that answers with labels only.

    Args:
        network: in evaluation mode, on the device of the images.
        ball: the attack's budget: `target.norm`, `target.eps`, `target.project`.
        max_queries: forward passes per image that may be asked for.
        deadline: time.monotonic() after which every question is refused.
    """

    def __init__(
        self,
        network: Network,
        ball: Ball,
        images: int,
        max_queries: int | None = None,
        deadline: float | None = None,
    ) -> None:
        self._hidden = network
        self.ball = ball
        self.images = images
        self.queries = 0
        self.gradients = 0
        self.classes = network.classes
        self.stochastic = network.random_input or any(
            getattr(module, "source", None) is not None for module in network.modules()
        )
        self._max_queries = max_queries
        self._deadline = deadline

    @property
    def eps(self) -> float:
        return self.ball.eps

    @property
    def norm(self) -> str:
        return self.ball.norm

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest image in the norm ball around `x` and in [0, 1]."""
        return self.ball.project(x_adv, x)

    def labels(self, x: Tensor) -> Tensor:
        """Predicted classes, (n,). One query for each row."""
        return self._ask(x).argmax(1)

    def _count(self, rows: int) -> None:
        self.queries += rows
        if self._max_queries is not None and self.queries > self._max_queries * self.images:
            raise BudgetExceeded(
                f"asked for more than max_queries = {self._max_queries} forward passes an image"
            )
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise BudgetExceeded("ran past its time_limit")

    def _ask(self, x: Tensor) -> Tensor:
        self._count(len(x))
        with torch.no_grad():
            return self._hidden(x)


class ScoreTarget(DecisionTarget):
    """A model that answers with logits."""

    def logits(self, x: Tensor) -> Tensor:
        """(n, classes), without a graph. One query for each row."""
        return self._ask(x)

    def module(self) -> nn.Module:
        """The target as a torch module, for libraries that want one; still counted."""
        return _Counted(self)


class WhiteBoxTarget(ScoreTarget):
    """A model whose gradients may be asked for."""

    def gradient(
        self,
        x: Tensor,
        y: Tensor,
        loss: RowLoss = cross_entropy,
        draws: int = 1,
        surrogate: str | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of the loss with respect to the images; only that is computed.

        Args:
            draws: fresh draws of a stochastic network to average over (EOT, Athalye et al. 2018).
            surrogate: derivative that stands in for that of steps and spikes; None: the network's.

        Returns (gradient like x, loss (n,), logits of the last draw (n, classes)).
        """
        total = torch.zeros_like(x)
        losses = torch.zeros(len(x), device=x.device)
        with using_surrogate(self._hidden, surrogate):
            for _ in range(draws):
                leaf = x.detach().requires_grad_()
                with torch.enable_grad():
                    logits = self.forward(leaf)
                    rows = loss(logits, y)
                (grad,) = torch.autograd.grad(rows.sum(), leaf)
                self.gradients += len(x)
                total += grad
                losses += rows.detach()
        return total / draws, losses / draws, logits.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Logits with a graph back to `x`. One query for each row."""
        self._count(len(x))
        return self._hidden(x)


class _Counted(nn.Module):
    def __init__(self, target: ScoreTarget) -> None:
        super().__init__()
        object.__setattr__(self, "_target", target)

    def forward(self, x: Tensor) -> Tensor:
        target: ScoreTarget = object.__getattribute__(self, "_target")
        if isinstance(target, WhiteBoxTarget):
            return target.forward(x)
        return target.logits(x)
