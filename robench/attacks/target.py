"""What an attack may see of a model: labels, logits or gradients, as the card's `access` says.

A target counts what it is asked. A black-box target computes without a graph, so it has no gradient
to give, whatever is done to its answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robench.attacks.losses import RowLoss, cross_entropy, margin
from robench.attacks.record import Record
from robench.networks.base import Network
from robench.networks.surrogate import surrogate as using_surrogate


class BudgetExceeded(Exception):
    """The attack asked for more than its card allows, or left its norm ball."""


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
                size: Tensor = torch.linalg.vector_norm(delta, dim=1)
                return size
            case "l1":
                return delta.abs().sum(1)
            case _:
                return (delta != 0).sum(1).to(delta.dtype)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest image in the ball and in [0, 1] (for l1: scaled back; l0: not projected)."""
        if self.norm == "linf":
            return torch.clamp(x_adv, *self.bounds(x))
        if self.norm in ("l2", "l1"):
            size = self.distance(x_adv, x).clamp_min(1e-12)
            scale = (self.eps / size).clamp_max(1).view(-1, *[1] * (x.dim() - 1))
            return (x + (x_adv - x) * scale).clamp(0, 1)
        return x_adv.clamp(0, 1)

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the greatest pixels that linf allows; a loop computes them once."""
        return (x - self.eps).clamp_min_(0), (x + self.eps).clamp_max_(1)


class Answer(NamedTuple):
    """What a gradient question yields; averages are over the draws of a stochastic network."""

    gradient: Tensor
    """Of the loss with respect to the images, like x."""
    loss: Tensor
    """Mean loss, (n,)."""
    margin: Tensor
    """Mean margin, (n,): positive where fooled."""
    fooled: Tensor
    """Share of the draws that were misclassified, (n,)."""
    logits: Tensor
    """Mean logits, (n, classes)."""


class DecisionTarget:
    """A model that answers with labels only.

    Args:
        network: in evaluation mode, on the device of the images.
        ball: the attack's budget: `target.norm`, `target.eps`, `target.project`.
        images: images in the batch under attack; what is asked is counted for each.
        max_queries: forward passes per image that may be asked for.
        deadline: time.monotonic() after which every question is refused.

    Every question takes an optional `index`: which image of the batch each row is about. An attack
    that drops images as they break, or asks many rows about one image, gives it, so that the counts
    are right image by image.
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
        self._weights = list(network.parameters())
        self.ball = ball
        self.images = images
        self.record = Record(images)
        self.classes = network.classes
        self.stochastic = network.random_input or any(
            getattr(module, "source", None) is not None for module in network.modules()
        )
        self._max_queries = max_queries
        self._deadline = deadline

    @property
    def queries(self) -> int:
        """Forward passes so far, all images together."""
        return round(self.record.total("queries"))

    @property
    def gradients(self) -> int:
        """Gradients so far, all images together."""
        return round(self.record.total("gradients"))

    @property
    def loss_trace(self) -> list[float]:
        return self.record.loss_trace

    def counts(self) -> dict[str, np.ndarray | None]:
        """Per image, (n,): see Record.counts. scoring.py writes them beside each outcome."""
        return self.record.counts()

    @property
    def eps(self) -> float:
        return self.ball.eps

    @property
    def norm(self) -> str:
        return self.ball.norm

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest image in the norm ball around `x` and in [0, 1]."""
        return self.ball.project(x_adv, x)

    def labels(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Predicted classes, (n,). One query for each row."""
        return self._ask(x, index).argmax(1)

    def affords(self, questions: int) -> bool:
        """Whether each image may be asked about so many times more."""
        if self._max_queries is None or not self.images:
            return True
        # Rows that are counted evenly add up in floating point.
        return self.record.most("queries") + questions <= self._max_queries + 1e-6

    def module(self) -> nn.Module:
        """The target as a torch module, for libraries that want one; still counted. It answers with
        what the access allows: a decision target with one-hot labels."""
        return _Counted(self)

    def _count(self, rows: int, index: Tensor | None) -> None:
        self.record.count("queries", rows, index)
        if not self.affords(0):
            raise BudgetExceeded(
                f"asked for more than max_queries = {self._max_queries} forward passes an image"
            )
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise BudgetExceeded("ran past its time_limit")

    def _ask(self, x: Tensor, index: Tensor | None) -> Tensor:
        self._count(len(x), index)
        with torch.no_grad():
            return self._hidden(x)


class ScoreTarget(DecisionTarget):
    """A model that answers with logits."""

    def logits(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """(n, classes), without a graph. One query for each row."""
        return self._ask(x, index)


class WhiteBoxTarget(ScoreTarget):
    """A model whose gradients may be asked for."""

    def gradient(
        self,
        x: Tensor,
        y: Tensor,
        loss: RowLoss = cross_entropy,
        draws: int = 1,
        surrogate: str | None = None,
        index: Tensor | None = None,
        view: Callable[[Tensor], Tensor] | None = None,
    ) -> Answer:
        """Gradient of the loss with respect to the images; only that is computed.

        Args:
            draws: fresh draws of a stochastic network to average over (EOT, Athalye et al. 2018).
            surrogate: derivative that stands in for that of steps and spikes; None: the network's.
            index: which image of the batch each row is.
            view: a differentiable transformation of the images that the network gets to see
                instead, drawn anew for each draw; loss and margin are of what it saw.
        """
        total: list[Tensor] = []
        named = using_surrogate(self._hidden, surrogate) if surrogate else nullcontext()
        with named, _frozen(self._weights):
            for _ in range(draws):
                leaf = x.detach().requires_grad_()
                self._count(len(x), index)
                with torch.enable_grad():
                    logits = self._hidden(leaf if view is None else view(leaf))
                    rows = loss(logits, y)
                grad = torch.autograd.grad(rows.sum(), leaf)[0]
                self.record.count("gradients", len(x), index)
                gap = margin(logits.detach(), y)
                drawn = [grad, rows.detach(), gap, (gap > 0).to(gap.dtype), logits.detach()]
                # Added up, so that memory does not grow with the draws.
                total = [a.add_(b) for a, b in zip(total, drawn, strict=True)] if total else drawn
        answer = Answer(*(part.div_(draws) if draws > 1 else part for part in total))
        self.record.first_gradient(answer.gradient, index)
        self.record.note(answer.loss, answer.margin if view is None else None, index)
        return answer

    def forward(self, x: Tensor) -> Tensor:
        """Logits with a graph back to `x`, for libraries. One query for each row, and one gradient
        when it is asked for."""
        self._count(len(x), None)
        with _frozen(self._weights):
            if not (torch.is_grad_enabled() and x.requires_grad):
                return self._hidden(x)
            seen = x.view_as(x)
            seen.register_hook(self._library_gradient)  # type: ignore[no-untyped-call]
            return self._hidden(seen)

    def _library_gradient(self, grad: Tensor) -> None:
        self.record.count("gradients", len(grad), None)
        self.record.first_gradient(grad, None)


@contextmanager
def _frozen(weights: list[nn.Parameter]) -> Iterator[None]:
    """No graph to the weights inside the block: their gradients are nobody's business here."""
    learning = [weight for weight in weights if weight.requires_grad]
    try:
        for weight in learning:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)


class _Counted(nn.Module):
    """A target that looks like a network; libraries feed it float64 too."""

    def __init__(self, target: DecisionTarget) -> None:
        super().__init__()
        object.__setattr__(self, "_target", target)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        target: DecisionTarget = object.__getattribute__(self, "_target")
        x = x.to(torch.float32)
        if isinstance(target, WhiteBoxTarget):
            return target.forward(x)
        if isinstance(target, ScoreTarget):
            return target.logits(x)
        return F.one_hot(target.labels(x), target.classes).to(x.dtype)
