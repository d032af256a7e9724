"""What an attack is after: to get away from a label or to reach a class, in the first answer or in
the first k.

Both ways are one: whoever wants a class descends what others ascend. So attacks look for a gap that
is positive, of the labels that are `sought`, and raise `loss`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from robench.attacks.losses import RowLoss, accuracy, margin


@dataclass(frozen=True)
class Goal:
    """The goal of a threat, for the images of a batch."""

    aim: Tensor | None = None
    """The class that each image is to be taken for, (n,); None: any but its label."""
    top_k: int = 1
    """A label counts as answered where it is among so many likeliest classes."""

    @property
    def plain(self) -> bool:
        """Whether it is what attacks are after where nobody says anything."""
        return self.aim is None and self.top_k == 1

    def sought(self, y: Tensor) -> Tensor:
        """The labels that gap and loss are of: those to get away from, or to reach."""
        return y if self.aim is None else self.aim

    def gap(self, logits: Tensor, sought: Tensor) -> Tensor:
        """How far beyond its goal each answer is, (..., n): positive where it is reached. logits:
        (..., n, classes)."""
        gap = margin(logits, sought, k=self.top_k)
        return gap if self.aim is None else -gap

    def loss(self, loss: RowLoss) -> RowLoss:
        """What is to be raised, of logits and the labels sought."""
        if self.top_k > 1 and loss in (margin, accuracy):
            loss = partial(loss, k=self.top_k)
        return loss if self.aim is None else partial(_less, loss=loss)


def _less(logits: Tensor, sought: Tensor, *, loss: RowLoss) -> Tensor:
    return -loss(logits, sought)


def of_draws(loss: Callable[..., Tensor]) -> bool:
    """Whether a loss, maybe with its aim or the other way round, is of all draws of an image at
    once."""
    inner = getattr(loss, "keywords", {}).get("loss")
    return of_draws(inner) if inner is not None else getattr(loss, "func", loss) is accuracy


def among(logits: Tensor, classes: Tensor, k: int) -> Tensor:
    """Whether a class is among the k likeliest, (n,) bool; of equals the lower class is likelier.
    logits: (n, all classes); classes: (n,)."""
    if k == 1:
        return logits.argmax(1) == classes
    own = logits.gather(1, classes[:, None])
    before = torch.arange(logits.shape[1], device=logits.device) < classes[:, None]
    return ((logits > own) | ((logits == own) & before)).sum(1) < k
